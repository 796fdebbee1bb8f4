"""`${NAME}` in a text: the value of an environment variable, which is secret and stands nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values in place of its `${NAME}`.

    Raises:
        KeyError: a value is not there.
    """
    return VARIABLE.sub(lambda match: values[match[1]], text)
