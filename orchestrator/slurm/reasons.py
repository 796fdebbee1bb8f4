"""Why a job waits, in plain language, and whether waiting can help."""

from __future__ import annotations

import re

_WAITS = {
    "AccountingPolicy": "waiting for a limit of your account",
    "AssociationJobLimit": "waiting for a limit of your account: the number of jobs",
    "AssociationResourceLimit": "waiting for a limit of your account",
    "BeginTime": "not to be started before a set time, or being queued again",
    "BurstBufferResources": "waiting for room in the burst buffer",
    "BurstBufferStageIn": "its data is being copied into the burst buffer",
    "Cleaning": "being cleaned up after its last run, before it is queued again",
    "Dependency": "waiting for the jobs it depends on",
    "FedJobLock": "waiting for the other clusters of the federation",
    "JobArrayTaskLimit": "as many of the array's jobs are running as it allows at a time",
    "Licenses": "waiting for a licence to become free",
    "NodeDown": "a node it needs is down",
    "NvidiaImexChannels": "waiting for an IMEX channel of the GPUs to become free",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition starts no jobs at the moment",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows, or they are down or drained",
    "Priority": "waiting behind jobs of higher priority",
    "Prolog": "its nodes are being prepared",
    "QOSUsageThreshold": "the usage threshold of its QOS has been passed",
    "ReqNodeNotAvail": "a node it asks for is down, drained or reserved",
    "Reservation": "waiting for its reservation to begin",
    "Resources": "waiting for nodes to become free",
    "SchedDefer": "to be started by the next pass of the scheduler",
    "QOSResourceLimit": "waiting for a limit of its QOS",
    "MaxPoweredUpNodes": "as many nodes are powered up as the site allows",
    "MpiPortsBusy": "waiting for ports for MPI on its nodes",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "its nodes are down, drained or reserved for jobs of higher priority"
    ),
}
_NEVER = {
    "AccountNotAllowed": "its account may not use this partition or QOS",
    "BadConstraints": "no node has what it asks for",
    "BurstBufferOperation": "an operation on its burst buffer failed",
    "Constraints": "no node has the features it asks for",
    "DeadLine": "it cannot end before its deadline any more",
    "DependencyNeverSatisfied": "a job it depends on has not ended as it requires, so it will never start",
    "InvalidAccount": "its account does not exist or may not be used",
    "InvalidQOS": "its QOS does not exist or may not be used",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held by its owner (`scontrol release JOB` lets it go)",
    "JobHoldMaxRequeue": "held: it has been queued again as often as the site allows",
    "JobLaunchFailure": "it could not be launched on its nodes",
    "MaxMemPerLimit": "it asks for more memory than the partition allows",
    "PartitionConfig": "its partition does not allow what it asks for",
    "PartitionTimeLimit": "its time limit is longer than its partition allows",
    "QOSNotAllowed": "its QOS may not be used in this partition",
    "ReservationDeleted": "its reservation has been deleted",
    "ReservationInvalid": "its reservation does not exist any more",
    "launch failed requeued held": "held: it could not be launched on its nodes",
    "job requeued in held state": "held: it was queued again so",
    "job requeued in special exit state": "held: it was queued again so, after a special exit code",
}
_LIMIT = re.compile(
    r"(?P<who>QOS|Assoc|Max)(?P<kind>Grp|Max|Min)?(?P<what>Cpu|CPU|GRES|Memory|Mem|Node|Jobs?|SubmitJobs?|"
    r"Wall|WallDuration|License|Billing|Energy|BB|Unknown)(?P<minutes>(?:Run)?(?:Minutes|Mins))?"
    r"(?P<per>Per(?:Job|Node|User|Account))?(?:Limit|NotSatisfied)?"
)
_WHO = {"QOS": "its QOS", "Assoc": "your account", "Max": "its QOS"}
_WHAT = {
    "Cpu": "CPUs",
    "CPU": "CPUs",
    "GRES": "GPUs or other generic resources",
    "Memory": "memory",
    "Mem": "memory",
    "Node": "nodes",
    "Wall": "run time",
    "WallDuration": "run time",
    "License": "licences",
    "Billing": "billing units",
    "Energy": "energy",
    "BB": "burst buffer",
    "Unknown": "a resource of the site",
}
_SENTENCES = re.compile(
    r"Reservation[ _]\S+[ _](?:was[ _]deleted|is[ _]invalid)|uid[ _][0-9]+[ _]not[ _]in[ _]group.*"
)
_TOGETHER = {"PerUser": "of all your jobs", "PerAccount": "of all jobs of the account"}


def explain_reason(reason: str) -> str:
    """Say in plain language why a job waits; a reason that is not known is returned as it is.

    Args:
        reason: Slurm's word, such as `Priority` or `ReqNodeNotAvail, UnavailableNodes:node3`.
    """
    word, rest = _parts(reason)
    told = _WAITS.get(word) or _NEVER.get(word) or _explain_limit(word)
    return f"{told} ({rest})" if told and rest else told or reason


def never_starts(reason: str) -> bool:
    """Tell whether waiting cannot help: the job, a limit or a hold has to be changed by someone first."""
    word, _ = _parts(reason)
    limit = _LIMIT.fullmatch(word)
    if limit is None:
        return word in _NEVER or _SENTENCES.fullmatch(reason) is not None
    return limit["kind"] == "Min" or limit["per"] in {"PerJob", "PerNode"}


def _parts(reason: str) -> tuple[str, str]:
    """Return the word and what is told beside it; scontrol writes `_` for every space."""
    text = reason.strip("()")
    if text in _WAITS or text in _NEVER:
        return text, ""
    if (spaced := text.replace("_", " ")) in _WAITS or spaced in _NEVER:
        return spaced, ""
    word, _, rest = text.partition(",")
    return word, rest.strip(" _")


def _explain_limit(word: str) -> str:
    """Explain a limit of a QOS or an account: `QOSMaxGRESPerUser`, `AssocGrpCpuLimit` and their like."""
    limit = _LIMIT.fullmatch(word)
    if limit is None:
        return ""
    who, what = _WHO[limit["who"]], limit["what"]
    if limit["kind"] == "Min":
        return f"it asks for less than {who} requires ({_WHAT.get(what, what)})"
    if limit["per"] in {"PerJob", "PerNode"} and not what.startswith(("Job", "Submit")):
        return f"it asks for more ({_subject(limit)}) than {who} allows a {limit['per'][3:].lower()}"
    scope = _TOGETHER.get(
        limit["per"] or "", "of all jobs it counts" if limit["kind"] == "Grp" else "of your jobs"
    )
    return f"waiting for a limit of {who}: {_subject(limit)} {scope}"


def _subject(limit: re.Match[str]) -> str:
    what = limit["what"]
    if what.startswith(("Job", "Submit")):
        return "the number"
    return f"{_WHAT[what]} x time" if limit["minutes"] else _WHAT[what]
