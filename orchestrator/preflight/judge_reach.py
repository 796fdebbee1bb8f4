"""Check of models and data sets: whether every host has them or gets at them. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from orchestrator.preflight.findings import Finding, fold_values
from orchestrator.preflight.names import names_in_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.job import JobSpec
    from orchestrator.preflight.case import Case

_MANY = 2  # hosts from which on it is worth saying that each downloads by itself


def request(spec: JobSpec, workdir: str, timeout: float = 5.0) -> dict[str, Any]:
    """Return the request for the program `reach`.

    Args:
        spec: the job file.
        workdir: where the script starts on the hosts (LaunchPlan.train_dir).
        timeout: seconds for one question to the hub.
    """
    return {"names": [asdict(each) for each in names_in_job(spec)], "workdir": workdir, "timeout": timeout}


def reach(case: Case) -> Iterator[Finding]:
    """Tell models and data sets that a host has not got and cannot get."""
    hosts = {name: host.probes["reach"] for name, host in case.with_data("reach").items()}
    for host, data in hosts.items():
        found = [
            each if asked.get("sure", True) or each.level != "bad" else _unsure(each)
            for asked in data["names"]
            for each in _of_name(host, asked, data, len(hosts))
        ]
        yield from found or [Finding(host, "reach", "ok")]


def _unsure(found: Finding) -> Finding:
    """Return what is said of a word that may be the script's own, as in `--tokenizer bpe`."""
    return replace(found, level="warn", fix=f"{found.fix}; if it is a name of the script's own, it is fine")


def _of_name(host: str, asked: Mapping[str, Any], data: Mapping[str, Any], hosts: int) -> Iterator[Finding]:
    what, lacks = f"{asked['where']}: {asked['name']}", asked.get("lacks", [])
    if asked["how"] == "hub":
        if asked["kind"] == "model" and hosts >= _MANY:
            text = f"{what} is not in {data['cache']} yet: ranks download it when the run starts"
            yield Finding(host, "reach", "warn", text, _download(asked, "before the run"))
    elif asked["how"] and not lacks:
        return
    elif asked["how"]:
        text = f"{what} is a folder without {_few(lacks)}"
        yield Finding(
            host, "reach", "warn", text, "see that it is complete; ranks that load it fail otherwise"
        )
    elif asked.get("refused"):
        text = f"{what}: {asked['why']}"
        fix = "correct the name, or ask for access on its page and pass HF_TOKEN on with train.secrets"
        yield Finding(host, "reach", "bad", text, fix)
    elif "path" in asked and not lacks:
        text = f"{what}: {asked['path']}: {asked['why']}"
        yield Finding(
            host, "reach", "bad", text, "put it on a disk that the hosts share, or correct the path"
        )
    else:
        cached = f"is in {data['cache']} without {_few(lacks)}" if lacks else f"is not in {data['cache']}"
        yield Finding(host, "reach", "bad", f"{what} {cached}, and {asked['why']}", _offline_fix(asked, data))


def _offline_fix(asked: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    fix = _download(asked, "on a host that has a network, with HF_HOME on a disk that the hosts share")
    if data["offline"]:
        return f"{fix}, or unset HF_HUB_OFFLINE"
    return f"{fix}, and set HF_HOME and HF_HUB_OFFLINE=1 in train.env" + (
        "" if data["proxy"] else ", or set https_proxy"
    )


def _download(asked: Mapping[str, Any], when: str) -> str:
    kind = " --repo-type dataset" if asked["kind"] == "dataset" else ""
    revision = "" if asked["revision"] == "main" else f" --revision {asked['revision']}"
    return f"download it once {when}: hf download {asked['name']}{kind}{revision}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def facts(case: Case) -> dict[str, str]:
    """Return where each name is found."""
    hosts = {name: host.probes["reach"] for name, host in case.with_data("reach").items()}
    names = list(dict.fromkeys(asked["name"] for data in hosts.values() for asked in data["names"]))
    texts = []
    for name in names:
        where = {h: _whence(asked) for h, d in hosts.items() for asked in d["names"] if asked["name"] == name}
        texts.append(f"{name}: {fold_values(where, [host.name for host in case.hosts])}")
    return {"reach": "; ".join(texts)}


def _whence(asked: Mapping[str, Any]) -> str:
    words = {"path": "a path", "cache": "in the cache", "hub": "on the hub"}
    return words.get(asked["how"], "not found")
