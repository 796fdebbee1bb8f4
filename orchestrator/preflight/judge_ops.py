"""Check of DeepSpeed's compiled operators: ready, to be compiled at the start, or impossible here. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.hosts.ranges import fold_names
from orchestrator.preflight.findings import Finding, fold_values
from orchestrator.preflight.needs import ops_needed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from orchestrator.preflight.case import Case

    Data = Mapping[str, Any]

_STALE = (
    600.0  # seconds in which a compiler writes nothing: a file of DeepSpeed's takes it some minutes at most
)
_NO_NVCC = frozenset({"cpu_adam", "cpu_adagrad", "cpu_lion", "pin_memory", "deepspeed_shm_comm"})
# DeepSpeed 0.19.8, op_builder/builder.py, cuda_minor_mismatch_ok: within these, minor versions may differ.
_ANY_MINOR = ("10", "11", "12")
_FIXES = {
    "a C++ compiler": "install g++ there, load its module in train.setup, or set CXX",
    "ninja": "install ninja for train.python (pip install ninja)",
    "nvcc": "install the CUDA toolkit of torch's version there, or load its module in train.setup",
    "libaio.h": "install libaio-dev (libaio-devel) there, or set CFLAGS and LDFLAGS to where it is",
    "curand": "install the whole CUDA toolkit there: the quantizer is linked with libcurand",
}


def request(
    config: Mapping[str, Any] | None, build: Collection[str] = (), seconds: float = 900
) -> dict[str, Any]:
    """Return the request for the program `ops`.

    Args:
        config: DeepSpeed's configuration; None for a job without.
        build: operators to build on this host (see to_build), one after another.
        seconds: limit of all of them together.
    """
    needed = {device: [op.name for op in ops_needed(config or {}, device)] for device in ("cuda", "cpu")}
    return {"ops": needed if config is not None else {}, "build": list(build), "seconds": seconds}


def to_build(answers: Mapping[str, Data]) -> dict[str, list[str]]:
    """Return what is to be built where: on one host of those that share a folder, and only what is not ready.

    Args:
        answers: data of the program `ops` by host, in rank order.
    """
    found: dict[str, list[str]] = {}
    taken: set[tuple[str, str]] = set()
    for host, data in answers.items():
        for name in data["ops"]:
            key = (name, data["disk"]["key"])
            if key not in taken and not _ready(name, data) and not missing(name, data):
                taken.add(key)
                found.setdefault(host, []).append(name)
    return found


def missing(name: str, data: Data) -> list[str]:
    """Return what a host lacks to compile an operator, as the keys of `_FIXES`; empty when it can."""
    tools, cuda = data["tools"], data["device"] == "cuda" and name not in _NO_NVCC
    lacks = {
        "a C++ compiler": not tools["g++"],
        "ninja": not tools["ninja"],
        "nvcc": cuda and not tools["nvcc"],
        "libaio.h": name in ("async_io", "gds") and not tools["libaio"],
        "curand": name == "quantizer" and cuda and bool(tools["nvcc"]) and not tools["curand"],
    }
    return [what for what, is_missing in lacks.items() if is_missing]


def not_built(data: Data, names: Collection[str], words: str) -> dict[str, Any]:
    """Return a host's data with what is said of the operators that it was to build, and is not known to have.

    Args:
        data: of the program `ops`.
        names: what was to be built.
        words: why the host gave no answer.
    """
    failed = {"ok": False, "seconds": 0.0, "words": [words]}
    return {**data, "built": {name: failed for name in names if not data["ops"][name]["cached"]}}


def ops(case: Case) -> Iterator[Finding]:
    """Tell operators that are compiled at the start of a run, or cannot be."""
    hosts = {name: host.probes["ops"] for name, host in case.with_data("ops").items()}
    sharing = _sharing(hosts)
    for host, data in hosts.items():
        found = [each for name in data["ops"] for each in _of_op(host, name, data, sharing)]
        found += _other_processors(host, data, hosts, sharing)
        yield from found or [Finding(host, "ops", "ok")]


def _sharing(hosts: Mapping[str, Data]) -> dict[str, list[str]]:
    """Return the hosts that see the same folder, by its key."""
    found: dict[str, list[str]] = {}
    for host, data in hosts.items():
        found.setdefault(data["disk"]["key"], []).append(host)
    return found


def _ready(name: str, data: Data) -> bool:
    return bool(_prebuilt(name, data) or data["ops"][name]["cached"])


def _prebuilt(name: str, data: Data) -> bool:
    """Tell whether an operator came with DeepSpeed; one for another accelerator is not looked at."""
    accelerator, _ = data["prebuilt_for"]
    return bool(data["ops"][name]["prebuilt"]) and accelerator == data["device"]


def _of_op(host: str, name: str, data: Data, sharing: Mapping[str, list[str]]) -> Iterator[Finding]:
    state, built = data["ops"][name], data["built"].get(name)
    if _prebuilt(name, data):
        yield from _wrong_torch(host, name, data)
    elif state["locked"] is not None:
        yield _locked(host, state)
    elif built is not None and not built["ok"]:
        what = f"{name} could not be built: {' | '.join(built['words'])}"
        yield Finding(host, "ops", "bad", what, "mend what the compiler says; it is the same in a run")
    elif lacks := [what for what in missing(name, data) if not state["cached"] or what == "ninja"]:
        how = (
            "is compiled already, but torch loads it only with"
            if state["cached"]
            else "cannot be compiled without"
        )
        fix = "; ".join(_FIXES[what] for what in lacks)
        yield Finding(host, "ops", "bad", f"{name} {how} {' and '.join(lacks)}", fix)
    elif wrong := _letters(name, data):
        what = f"TORCH_CUDA_ARCH_LIST={data['arch_list']}: DeepSpeed takes {wrong} for a number, and fails"
        yield Finding(
            host, "ops", "bad", what, "unset it in train.setup, or set it without letters, such as 9.0"
        )
    elif not state["cached"]:
        yield from _wrong_cuda(host, name, data)
        yield _compiles_at_start(host, name, sharing[data["disk"]["key"]])


def _wrong_torch(host: str, name: str, data: Data) -> Iterator[Finding]:
    """DeepSpeed refuses an operator that was built for another torch or CUDA (builder.py, OpBuilder.load)."""
    _, made_for = data["prebuilt_for"]
    here = {"version": ".".join(data["torch"].split(".")[:2]), "cuda_version": _minor(data["torch_cuda"])}
    for key, what in (("version", "torch"), ("cuda_version", "CUDA")):
        checked = key == "version" or (data["device"] == "cuda" and name not in _NO_NVCC)
        if checked and made_for.get(key) and here[key] != made_for[key]:
            text = f"{name} was built with {what} {made_for[key]}, here is {here[key]}: it is refused"
            yield Finding(
                host, "ops", "bad", text, "install DeepSpeed again there, with DS_BUILD_OPS=0 or as before"
            )


def _wrong_cuda(host: str, name: str, data: Data) -> Iterator[Finding]:
    nvcc, torch = data["tools"]["nvcc"], data["torch_cuda"]
    if data["device"] != "cuda" or name in _NO_NVCC or not nvcc or _minor(nvcc) == _minor(torch):
        return
    major = nvcc.split(".")[0]
    if major in _ANY_MINOR and major == torch.split(".")[0]:
        return
    what = f"{name}: nvcc is {nvcc} and torch was made with CUDA {torch}; DeepSpeed refuses to compile"
    fix = f"take a CUDA toolkit {_minor(torch)} (CUDA_HOME), or set DS_SKIP_CUDA_CHECK=1 at your own risk"
    yield Finding(host, "ops", "bad", what, fix)


def _letters(name: str, data: Data) -> str:
    """Return an entry such as 9.0a, which DeepSpeed 0.19.8 cannot read (builder.py, compute_capability_args).

    Images for Hopper set it; every operator that nvcc compiles then raises, compiled already or not.
    """
    entries = data["arch_list"].replace(" ", ";").split(";") if data["device"] == "cuda" else []
    letters = [entry for entry in entries if entry.replace("+PTX", "").strip("0123456789.")]
    return letters[0] if letters and name not in _NO_NVCC else ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _locked(host: str, state: Mapping[str, Any]) -> Finding:
    lock, age = f"{state['folder']}/lock", state["locked"]
    if age < _STALE:
        return Finding(
            host, "ops", "warn", f"{lock}: somebody is compiling it (a word {age:.0f} s ago)", "wait for it"
        )
    what = f"{lock} is left over: nothing written there for {age / 60:.0f} min; every rank will wait for ever"
    return Finding(host, "ops", "bad", what, f"rm {lock}")


def _compiles_at_start(host: str, name: str, sharing: list[str]) -> Finding:
    what = f"{name} is compiled when the run starts"
    if len(sharing) > 1:
        what += f"; {len(sharing)} hosts share the folder: one compiles, the others wait for its lock"
    return Finding(
        host, "ops", "warn", what, "orchestrate check --build-ops does it now, once for each folder"
    )


def _other_processors(
    host: str, data: Data, hosts: Mapping[str, Data], sharing: Mapping[str, list[str]]
) -> Iterator[Finding]:
    """Tell a folder that hosts with other processors use too: DeepSpeed compiles with -march=native."""
    first = sharing[data["disk"]["key"]][0]
    jit = [name for name in data["ops"] if not _prebuilt(name, data)]
    if jit and data["cpu"] != hosts[first]["cpu"]:
        own, other = data["cpu"], hosts[first]["cpu"]
        what = (
            f"{own} here, {other} on {first}, which shares {data['folder']}: the code of one may crash on it"
        )
        fix = "set TORCH_EXTENSIONS_DIR in train.setup to a folder for each kind of processor"
        yield Finding(host, "ops", "warn", what, fix)


def facts(case: Case) -> dict[str, str]:
    """Return which operators the job needs and where they come from, and what was built in which time."""
    hosts = {name: host.probes["ops"] for name, host in case.with_data("ops").items()}
    names = [host.name for host in case.hosts]
    kinds = list(dict.fromkeys(name for data in hosts.values() for name in data["ops"]))
    texts = []
    for kind in kinds:
        there = {host: _whence(kind, data) for host, data in hosts.items() if kind in data["ops"]}
        texts.append(f"{kind}: {fold_values(there, names)}")
    for host, data in hosts.items():
        texts += [f"{n} built on {host} in {b['seconds']:.0f} s" for n, b in data["built"].items() if b["ok"]]
    shared = [fold_names(group) for group in _sharing(hosts).values() if len(group) > 1]
    texts += [f"{group} share the folder for them" for group in shared if kinds]
    return {"ops": "; ".join(texts)}


def _whence(name: str, data: Data) -> str:
    if _prebuilt(name, data):
        return "prebuilt"
    return "compiled already" if data["ops"][name]["cached"] else "not compiled"
