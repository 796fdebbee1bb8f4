"""Facts for tests of rules: a job in one line of YAML, on hosts that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from orchestrator import rules
from orchestrator.configs import deepspeed_config
from orchestrator.hosts import Host, HostPool
from orchestrator.job import JobSpec
from orchestrator.rules import Facts, Finding

_DEFAULTS: dict[str, dict[str, Any]] = {
    "cluster": {"backend": "local"},
    "train": {"script": "train.py", "args": ["{ds_config}"]},
}


class Case(NamedTuple):
    """A rule, a job it finds something in, and one that differs little and is right."""

    rule: str
    fires: str
    silent: str


def hosts(*slots: int) -> HostPool:
    """Return hosts h0, h1, … with so many slots."""
    return HostPool(tuple(Host(f"h{index}", tuple(range(count))) for index, count in enumerate(slots)))


def facts(line: str) -> Facts:
    """Return the facts of a job that is written as the inside of a YAML flow mapping.

    `hosts: [4, 4]` gives the slots of each host, two with four when not given; `facts: {…}` any fact besides
    spec, pool and config, `raw: {…}` keys of DeepSpeed's configuration that nobody has checked; stage 3 and a
    micro-batch are there unless the line says otherwise.
    """
    data = yaml.safe_load(f"{{{line}}}")
    pool = hosts(*data.pop("hosts", (4, 4)))
    more, raw = data.pop("facts", {}), data.pop("raw", {})
    if "tensors" in more:
        more["tensors"] = tuple(more["tensors"])
    sections = {key: {**inner, **data.get(key, {})} for key, inner in _DEFAULTS.items()}
    deepspeed = {"zero_stage": 3, "micro_batch_per_gpu": 1, **data.get("deepspeed", {})}
    spec = JobSpec.model_validate({**data, **sections, "deepspeed": deepspeed})
    return Facts(spec, pool, _config(spec, pool) | raw, **more)


def _config(spec: JobSpec, pool: HostPool) -> dict[str, Any]:
    assert spec.deepspeed is not None
    launcher, model = spec.train.launcher, spec.model
    built = deepspeed_config.build(spec.deepspeed, pool, Path("/nowhere"), launcher=launcher, model=model)
    return dict(built.config)


def found(line: str) -> list[Finding]:
    """Return what all rules find in a job."""
    return rules.check(facts(line))


def ids(line: str) -> list[str]:
    """Return the rules that find something in a job, once each."""
    return list(dict.fromkeys(finding.rule for finding in found(line)))


def assert_case(case: Case) -> None:
    """Check that a rule fires where it should, with a fix, and is silent where it should be."""
    mine = [finding.problem for finding in found(case.fires) if finding.rule == case.rule]
    assert mine, f"{case.rule} does not find anything in {case.fires}; others: {ids(case.fires)}"
    assert all(problem.what and problem.where and problem.fix for problem in mine)
    assert case.rule not in ids(case.silent)
