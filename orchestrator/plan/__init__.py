"""The launch plan: everything a template, the supervisor or an agent may read, and nothing else.

A plan is made at submit, from the job file and the resolved hosts, and stored as `plan.json`, from which
alone the supervisor drives the run. Where a scheduler gives the hosts, each attempt has a plan of its own,
with the hosts that it was given.
"""

from orchestrator.plan.host import PlannedHost, file_name, plan_hosts
from orchestrator.plan.launch import (
    PLACEHOLDERS,
    ContainerPlan,
    KeepPlan,
    LaunchPlan,
    SlurmPlan,
    SshPlan,
)
from orchestrator.plan.make import make_plan
from orchestrator.plan.monitor import MonitorPlan
from orchestrator.plan.notify import NotifyPlan

__all__ = [
    "PLACEHOLDERS",
    "ContainerPlan",
    "KeepPlan",
    "LaunchPlan",
    "MonitorPlan",
    "NotifyPlan",
    "PlannedHost",
    "SlurmPlan",
    "SshPlan",
    "file_name",
    "make_plan",
    "plan_hosts",
]
