"""Measures how fast this host and others sum a tensor over the network: `pairwise REQUEST`.

Every host has its own list of rounds in the request and meets one other host in each. The host that leads a
meeting waits at its door (a port that stays open all the while), the other one comes to it; what a door says
tells a host that is busy from one that is dead. So a dead host costs those that wait for it `patience`
seconds, once: those who know of it tell the others. Then both measure an all-reduce, see ranks; without
torch, both send each other bytes over TCP.

The request is a JSON object (see preflight.links.requests).
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Set

from orchestrator.agent import network
from orchestrator.preflight.probes import answers

from .door import AbsentError, Door, Patience
from .exchange import exchange
from .lines import receive, send
from .ranks import Ranks

if TYPE_CHECKING:
    import socket

    from .door import Guest

_POLL = 1.0  # seconds between two looks whether the other host still lives


def tell(answer: Dict[str, Any]) -> None:
    """Print one answer."""
    answers.tell(dict(answer, check="links"))


def environment(request: Dict[str, Any], given: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that ranks get besides those of this host, which win as they do in a run.

    Without an interface in the request it is the one that has this host's address.
    """
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    name = request["interface"] or network.addresses().get(request["address"], "")
    if name:
        env.update(GLOO_SOCKET_IFNAME=name, NCCL_SOCKET_IFNAME=f"={name}")  # "=": no other that begins so
    env.update(request["env"])
    return {key: value for key, value in env.items() if key not in given}


class Host:
    """This host in all its meetings."""

    def __init__(self, request: Dict[str, Any]) -> None:
        self._asked = request
        self._until = time.monotonic() + request["start"]
        self._dead: Set[str] = set()
        self._door = Door(request["address"], request["port"], request["token"])
        self._ranks = Ranks(environment(request, os.environ), request["backend"])
        can = self._ranks.ready(request["start"])
        tell({"can": can["can"], "why": can.get("why", "")})
        self._me = {"name": request["name"], "index": request["index"], "can": can["can"]}
        self._me["ranks"] = request["ranks"] if can["can"] != "tcp" else 1

    def run(self) -> None:
        """Go to all meetings, one after the other."""
        for each in self._asked["rounds"]:
            self._attend(each, [each["peer"]], {"peer": each["peer"], "round": each["round"]}, "pair")
        if self._asked["all"]:
            names = self._asked["all"].get("names", [])
            self._attend(self._asked["all"], names, {"leader": self._asked["all"]["peer"]}, "all")
        self._ranks.end()
        tell({"done": True})

    def _attend(self, each: Dict[str, Any], names: List[str], about: Dict[str, Any], kind: str) -> None:
        try:
            result = self._lead(each, names) if each["leads"] else self._follow(each)
        except (AbsentError, OSError, ValueError) as error:
            if isinstance(error, AbsentError) and kind == "pair":
                self._dead.add(each["peer"])
            absent = isinstance(error, AbsentError)
            tell({"failed": dict(about, kind=kind, absent=absent, why=str(error) or type(error).__name__)})
        else:
            tell({kind: dict(about, **result)})

    def _patience(self, each: Dict[str, Any]) -> Patience:
        known = each["peer"] in self._dead
        seconds = 0.0 if known else self._asked["patience"]
        return Patience(each, self._asked["token"], seconds, 0.0 if known else self._until)

    def _lead(self, each: Dict[str, Any], names: List[str]) -> Dict[str, Any]:
        guests = self._gather(each) if len(names) == 1 else self._gather_all(each["meeting"], names)
        self._door.close(each["meeting"])
        members = sorted(guests, key=lambda guest: int(guest[1]["index"]))
        return self._open(members)

    def _gather(self, each: Dict[str, Any]) -> List[Guest]:
        patience = self._patience(each)
        while True:
            guest = self._door.wait(each["meeting"], [each["peer"]], _POLL)
            if guest is not None:
                return [guest]
            if patience.over:
                self._door.close(each["meeting"])
                raise AbsentError(patience.why)
            patience.look()

    def _gather_all(self, meeting: str, names: List[str]) -> List[Guest]:
        """Wait for all that may come: a host that waited for a dead one is late by as much as that."""
        guests: List[Guest] = []
        missing = [name for name in names if name not in self._dead]
        while missing:
            guest = self._door.wait(meeting, missing, 2 * self._asked["patience"])
            if guest is None:
                break
            missing.remove(guest[1]["name"])
            guests.append(guest)
        if not guests:
            raise AbsentError("no other host came")
        return guests

    def _open(self, members: List[Guest]) -> Dict[str, Any]:
        """Say to all how and where to measure, and do so."""
        kinds = {self._me["can"], *(hello["can"] for _, hello in members)}
        how = "tcp" if "tcp" in kinds else "gloo" if "gloo" in kinds else "nccl"
        if how == "tcp" and len(members) > 1:
            raise OSError("not all hosts have torch, so there is nothing that all can take part in")
        for _, hello in members:
            self._dead.update(hello["dead"])
        world = self._me["ranks"] + sum(hello["ranks"] for _, hello in members) if how != "tcp" else 2
        held = network.HeldPort(0)
        try:
            held.stop_listening()
            where = {"address": self._asked["address"], "port": held.number}
            group = dict(where, how=how, world=world, hosts=len(members) + 1, dead=sorted(self._dead))
            first = self._me["ranks"]
            for connection, hello in members:
                send(connection, dict(group, first=first))
                first += hello["ranks"]
            return self._measure(dict(group, first=0), members[0][0])
        finally:
            held.close()

    def _follow(self, each: Dict[str, Any]) -> Dict[str, Any]:
        patience = self._patience(each)
        while True:
            hello = dict(self._me, meeting=each["meeting"], dead=sorted(self._dead))
            connection = patience.call(hello)
            if connection is not None:
                group = self._await(connection, patience)
                self._dead.update(group["dead"])
                return self._measure(group, connection)
            if patience.over:
                raise AbsentError(patience.why)
            time.sleep(0.2)

    def _await(self, connection: socket.socket, patience: Patience) -> Dict[str, Any]:
        while not select.select([connection], [], [], _POLL)[0]:
            if patience.over:
                raise AbsentError(patience.why)
            patience.look()
        group = receive(connection, 5)
        if "how" not in group:
            raise AbsentError("it had given us up already")
        return group

    def _measure(self, group: Dict[str, Any], connection: socket.socket) -> Dict[str, Any]:
        order = {name: self._asked[name] for name in ("bytes", "repeats", "seconds", "limit")}
        if group["how"] == "tcp":
            with connection:
                done = exchange(connection, order, leads=group["first"] == 0)
            done["bandwidth"] = done["bytes"] / done["time"]
        else:
            done = self._ranks.measure(dict(order, ranks=self._me["ranks"], **group))
            # What the host at one end of a ring sends: nccl-tests' "bus bandwidth" (doc/PERFORMANCE.md).
            done["bandwidth"] = done["bytes"] / done["time"] * 2 * (group["world"] - 1) / group["world"]
        return dict(done, how=group["how"], ranks=group["world"], hosts=group["hosts"])


def main(request: Dict[str, Any]) -> int:
    """Go to all meetings of a request; 1 where this host cannot even open its door."""
    try:
        host = Host(request)
    except OSError as error:
        tell({"failed": {"kind": "host", "why": str(error)}})
        return 1
    host.run()
    return 0
