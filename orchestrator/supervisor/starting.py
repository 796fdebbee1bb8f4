"""From agents on every host to ranks on every host: nothing starts before everything can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.states import State
from orchestrator.supervisor import route

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.supervisor.board import Board
    from orchestrator.supervisor.host_state import HostState


class Starting:
    """Waits for the hosts, checks them, finds the route between them, gives the start.

    What goes wrong ends the attempt through the board, naming the host and the reason.
    """

    def __init__(self, plan: LaunchPlan, board: Board) -> None:
        self._plan = plan
        self._board = board
        self._hosts = list(board.hosts.values())

    async def run(self, seconds: float) -> None:
        """Start the ranks, if every host is ready within `seconds` and fit.

        Hosts whose ranks run already (a supervisor has been replaced) are left as they are.
        """
        if not await self._board.until(self._all_ready, seconds):
            self._blame_silent_hosts(seconds)
        if self._board.ending is not None or all(state.started for state in self._hosts):
            return
        self._board.describe_hosts()
        if self._has_problems():
            return
        found = await self._find_route()
        if found is not None and self._board.ending is None:
            self._order(found)

    def _all_ready(self) -> bool:
        return all(state.ready is not None for state in self._hosts)

    def _blame_silent_hosts(self, seconds: float) -> None:
        if self._board.ending is not None:
            return
        silent = [state for state in self._hosts if state.ready is None]
        for state in silent:
            state.fail(f"no word from its agent in {seconds:g} s", lost=True)
        self._board.end(State.FAILED, "not every host has started")

    def _has_problems(self) -> bool:
        for state in self._hosts:
            ready = state.ready or {}
            told = [
                *ready.get("problems", []),
                *([ready["port"]] if isinstance(ready.get("port"), str) else []),
            ]
            if told:
                state.fail("; ".join(told))
        failed = [state for state in self._hosts if state.failure]
        if failed:
            self._board.end(State.FAILED, f"{failed[0].plan.name}: {failed[0].failure}")
        return bool(failed)

    async def _find_route(self) -> route.Route | None:
        """Try the master's addresses until every host reaches one."""
        master = self._hosts[0]
        port = int((master.ready or {}).get("port") or 0)
        own = route.loopback(self._plan, port)
        if own is not None:
            return own
        for address in route.candidates(self._plan, master):
            if await self._all_reach(address, port):
                interfaces = {state.plan.name: str((state.route or {})["interface"]) for state in self._hosts}
                return route.Route(address, port, interfaces)
        self._blame_unreachable_master(master, port)
        return None

    async def _all_reach(self, address: str, port: int) -> bool:
        for state in self._hosts:
            state.route = None
        probe = {"t": "probe", "addresses": [address], "port": port, "timeout": route.PROBE_SECONDS}
        self._board.broadcast(probe)
        # An agent that is only slow answers: who has none when the lease is over is lost, which ends this.
        await self._board.until(self._all_answered, max(2 * route.PROBE_SECONDS, self._plan.lease))
        return all(state.route is not None and state.route["address"] for state in self._hosts)

    def _all_answered(self) -> bool:
        return all(state.route is not None for state in self._hosts)

    def _blame_unreachable_master(self, master: HostState, port: int) -> None:
        if self._board.ending is not None:
            return
        name = master.plan.name
        for state in self._hosts:
            if state.route is None or not state.route["address"]:
                why = "; ".join((state.route or {}).get("failures", [])) or "no answer"
                fix = "set train.master_addr or train.interface"
                state.fail(f"cannot reach the master {name} on port {port} ({why}); {fix}")
        self._board.end(State.FAILED, f"not every host can reach the master {name}")

    def _order(self, found: route.Route) -> None:
        self._board.event("start", master=found.address, port=found.port, interfaces=found.interfaces)
        self._board.give_start(
            {state.plan.name: route.start_message(self._plan, state, found) for state in self._hosts}
        )
