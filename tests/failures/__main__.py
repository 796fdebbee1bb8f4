"""Print how well the corpus of failures is told: `python -m tests.failures`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.failures import Score, cases, score, shares

if TYPE_CHECKING:
    from collections.abc import Iterator


def _wrong(scores: list[Score]) -> Iterator[str]:
    for one in scores:
        if one.named_wrong or one.named is False or not one.category_right:
            first = one.told.first
            who = "nobody" if first is None else f"{first.host}:{first.rank}"
            told = f"{one.told.category} by {one.told.patterns}, {who}"
            yield f"{one.case.name}: {told}; expected {one.case.expected['category']}, {one.case.first}"
            yield f"    {one.told.summary[:200]}"


def main() -> int:
    """Print both percentages and what is told wrong."""
    scores = [score(case) for case in cases()]
    for line in _wrong(scores):
        print(line)
    named, right = shares(scores)
    wrong = sum(one.named_wrong for one in scores)
    public = sum(one.case.expected["source"] != "captured" for one in scores)
    print(f"{len(scores)} failures, {len(scores) - public} captured and {public} of public issues")
    print(f"first failure named {named:.1%}, named wrong {wrong}; category right {right:.1%}")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
