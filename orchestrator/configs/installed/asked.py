"""A configuration that notes which of its keys are asked for."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any, Dict, Iterator, Mapping, Tuple

KeyPath = Tuple[str, ...]

ALL = "*"
_WHOLE = (("optimizer", "params"), ("scheduler", "params"))  # torch's classes read them, not DeepSpeed's
_OWN_AUTO = ("autotuning", "data_types", "expert_parallel", "pipeline", "tensor_parallel")  # "auto" is theirs


class Asked(Dict[str, Any]):
    """A section of DeepSpeed's configuration that notes which of its keys are asked for.

    Keys that are "auto" are hidden: a script fills them before DeepSpeed sees them.

    Attributes:
        path: of the section.
        asked: keys that were asked for, there or not.
        whole: all of it was taken, by a class that itself refuses keys it does not know.
        autos: the hidden keys.
        trail: paths in the order in which they were touched, of all sections; one that was taken whole ends
            with a star.
    """

    def __init__(self, config: Mapping[str, Any], path: KeyPath, trail: list[KeyPath]) -> None:
        super().__init__()
        self.path, self.trail, self.whole = path, trail, False
        self.asked: set[str] = set()
        self.autos: list[str] = []
        for key, value in config.items():
            below = (*path, key)
            if value == "auto" and below[0] not in _OWN_AUTO:
                self.autos.append(key)
            else:
                self[key] = Asked(value, below, trail) if isinstance(value, dict) else value

    def _ask(self, key: str) -> None:
        self.asked.add(key)
        self.trail.append((*self.path, key))

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, noting that it was asked for."""
        self._ask(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._ask(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.trail.append((*self.path, str(key)))  # touched, not read
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        # Without this method, `f(**section)` would copy the dictionary and ask nothing (CPython, dict_merge).
        self.whole = True
        self.trail.append((*self.path, ALL))
        return super().__iter__()

    def keys(self) -> Any:
        """Return the keys; to go through them is to take all."""
        return KeysView(self)

    def values(self) -> Any:
        """Return the values; to go through them is to take all."""
        return ValuesView(self)

    def items(self) -> Any:
        """Return keys and values; to go through them is to take all."""
        return ItemsView(self)

    def __copy__(self) -> dict[str, Any]:
        return dict(self) if self.path else self  # DeepSpeedConfig reads a copy of the outermost

    def unread(self) -> Iterator[tuple[KeyPath, set[str]]]:
        """Yield each key that nobody asked for, and the keys that were asked for beside it."""
        taken = self._taken()
        for key in [*dict.__iter__(self), *self.autos]:
            if not taken and key not in self.asked:
                yield (*self.path, key), self.asked
            else:
                inner = dict.get(self, key)
                yield from inner.unread() if isinstance(inner, Asked) else ()

    def taken_autos(self) -> Iterator[KeyPath]:
        """Yield the hidden keys of sections that were taken whole: a class reads them, or nobody."""
        if self._taken() and self.path not in _WHOLE:
            yield from ((*self.path, key) for key in self.autos)
        for inner in dict.values(self):
            yield from inner.taken_autos() if isinstance(inner, Asked) else ()

    def _taken(self) -> bool:
        """Return whether the section went to somebody as a whole; pydantic reads a dictionary unasked."""
        return self.whole or self.path in _WHOLE or bool(self.path and not self.asked)
