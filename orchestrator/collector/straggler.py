"""Which hosts are out of line: pure functions of the last measurements.

Ranks of synchronous training end every step together, so the time of a step seldom tells which host was
late. What tells is: GPUs whose clocks are held down while those of other hosts are not; ranks that tell
longer steps than others (their own part of a step); on CPUs with gloo, ranks that compute while those of
other hosts wait and sleep. A host is named when this held for _LASTING measurements in a row, and there
are at least _FEWEST hosts to compare.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LASTING = 3
_FEWEST = 3  # hosts; of two that differ nobody can say which is right
_CLOCK = 0.85  # of the typical clock
_STEP = 1.25  # of the typical step time
_CPU = 1.5  # of the typical CPU of a rank
_WORKS = 0.3  # cores; a rank that uses less computes nothing that others could wait for
_ASLEEP = 0.8  # cores; where ranks that wait use more, they spin, and CPU tells nothing
_BUSY = 0.5  # of a GPU's time


@dataclass(slots=True)
class Host:
    """The last measurements of one host; None where it tells nothing.

    Attributes:
        clock: median clock of its busy GPUs, MHz.
        held: why the clock of one of its busy GPUs is held down; "" when none is.
        step_time: median of its ranks' step times, seconds.
        cpu: median of its ranks' CPU, cores.
    """

    clock: float | None = None
    held: str = ""
    step_time: float | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A host that is out of line."""

    host: str
    what: str
    value: float
    typical: float
    unit: str
    words: str


def gpus_of(gpus: Mapping[int, Mapping[str, Any]]) -> tuple[float | None, str]:
    """Return the median clock of a host's busy GPUs (MHz), and why one is held down."""
    busy = [gpu for gpu in gpus.values() if gpu.get("utilization", 0) >= _BUSY]
    clocks = [gpu["clock"] for gpu in busy if "clock" in gpu]
    held = next((str(gpu["throttled"]) for gpu in busy if gpu.get("throttled")), "")
    return (median(clocks) if clocks else None), held


def compare(hosts: Mapping[str, Host]) -> Iterator[Finding]:
    """Yield the hosts that are out of line by one measurement of each."""
    yield from _beyond(hosts, "clock", 0.0, _CLOCK)
    yield from _beyond(hosts, "step_time", _STEP, None)
    cpus = [host.cpu for host in hosts.values() if host.cpu is not None]
    if cpus and median(cpus) <= _ASLEEP:
        yield from (found for found in _beyond(hosts, "cpu", _CPU, None) if found.value >= _WORKS)


_GPUS = "its GPUs run at {value:.0f} MHz, those of the other hosts at {typical:.0f}{held}"
_STEPS = "its ranks need {value:.3g} s for a step, those of the other hosts {typical:.3g} s"
_COMPUTE = (
    "its ranks compute ({value:.2f} cores each), those of the other hosts wait for them ({typical:.2f})"
)
_TOLD = {
    "clock": ("clock", "MHz", _GPUS),
    "step_time": ("step_time", "s", _STEPS),
    "cpu": ("wait", "cores", _COMPUTE),
}


def _beyond(hosts: Mapping[str, Host], name: str, above: float, below: float | None) -> Iterator[Finding]:
    values = {host: value for host, of in hosts.items() if (value := getattr(of, name)) is not None}
    if len(values) < _FEWEST:
        return
    typical = median(values.values())
    what, unit, words = _TOLD[name]
    for host, value in values.items():
        if (below is not None and value < below * typical) or (below is None and value > above * typical):
            held = f" ({hosts[host].held})" if hosts[host].held else ""
            said = words.format(value=value, typical=typical, held=held)
            yield Finding(host, what, round(value, 4), round(typical, 4), unit, said)


@dataclass
class Stragglers:
    """Which hosts have been out of line for long enough.

    Attributes:
        named: those that are, by host and what.
    """

    named: dict[tuple[str, str], Finding] = field(default_factory=dict)
    _seen: dict[tuple[str, str], deque[bool]] = field(default_factory=dict)

    def look(self, hosts: Mapping[str, Host]) -> Iterator[dict[str, Any]]:
        """Yield the events `straggler` and `straggler_over` that one more measurement makes."""
        found = {(finding.host, finding.what): finding for finding in compare(hosts)}
        for key in found.keys() | self._seen.keys():
            seen = self._seen.setdefault(key, deque(maxlen=_LASTING))
            seen.append(key in found)
            if key in self.named and not any(seen) and len(seen) == _LASTING:
                del self.named[key], self._seen[key]
                yield {"event": "straggler_over", "host": key[0], "what": key[1]}
            elif key not in self.named and sum(seen) == _LASTING:
                self.named[key] = found[key]
                yield _event(found[key])
            elif key not in self.named and not any(seen):
                del self._seen[key]


def _event(finding: Finding) -> dict[str, Any]:
    names = ("host", "what", "value", "typical", "unit", "words")
    return {"event": "straggler", **{name: getattr(finding, name) for name in names}}
