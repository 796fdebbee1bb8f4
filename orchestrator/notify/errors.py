"""How a notification fails."""

from __future__ import annotations


class DeliveryError(Exception):
    """A notification did not arrive; `again` tells whether another try may help."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again
