"""Bring a testbed up and keep it: `python -m tests.testbed up --nodes 2`, then `shell node1`, `down`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from tests.testbed import processes
from tests.testbed.accounts import ORDINARY
from tests.testbed.bed import Testbed, clear
from tests.testbed.host import CLEAN
from tests.testbed.options import default_base
from tests.testbed.requirements import TestbedError
from tests.testbed.state import beds


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    top.add_argument(
        "--dir", type=Path, default=default_base(), help="folder of all beds (default: %(default)s)"
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_up(commands.add_parser("up", help="bring hosts up and leave them up"))
    down = commands.add_parser("down", help="take beds down that `up` made, or whose test run has died")
    down.add_argument("bed", nargs="*", help="names such as ob42; default: all of these")
    commands.add_parser("status", help="list beds, hosts and what runs on them").add_argument(
        "--json", action="store_true"
    )
    shell = commands.add_parser("shell", help="open a shell on a host, or run a command there")
    shell.add_argument("--user", default="root", help=f"root or {ORDINARY}")
    cable = commands.add_parser("cable", help="pull or plug a host's network cable")
    for command in (shell, cable):
        command.add_argument("--bed", help="which one, where several are up")
        command.add_argument("host", help="such as node1, or submit")
    cable.add_argument("action", choices=["pull", "plug"])
    shell.add_argument("argv", nargs=argparse.REMAINDER, help="command; default: bash")
    return top


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--slots", type=int, default=2, help="slots of each host in the hostfile")
    up.add_argument("--private", action="append", default=[], metavar="DIR", help="folder that is not shared")
    up.add_argument("--slow", metavar="RATE", help="limit every link, such as 100mbit")
    up.add_argument("--jump", action="store_true", help="only node1 is reachable, the others through it")
    up.add_argument("--banner", action="store_true", help="sshd prints a banner")
    up.add_argument("--chatty", action="store_true", help=".bashrc prints noise")
    up.add_argument("--user", action="store_true", help=f"an ordinary user {ORDINARY} exists on the hosts")
    up.add_argument("--slurm", action="store_true", help="the hosts are a Slurm cluster, with fake GPUs")
    up.add_argument("--accounting", action="store_true", help="which keeps accounts (slurmdbd, MariaDB)")
    up.add_argument("--cgroups", action="store_true", help="which confines jobs to cgroups")
    up.add_argument("--own-name-resolves", action="store_true", help="own name is not 127.0.1.1 on a host")


def up(args: argparse.Namespace) -> int:
    """Bring a bed up, leave it up, and print how to use it."""
    bed = Testbed.up(
        base=args.dir,
        keep=True,
        nodes=args.nodes,
        slots=args.slots,
        private_dirs=tuple(args.private),
        jump=args.jump,
        banner=args.banner,
        chatty=args.chatty,
        ordinary_user=args.user,
        debian_hosts=not args.own_name_resolves,
        slurm=args.slurm or args.accounting or args.cgroups,
        cgroups=args.cgroups,
        accounting=args.accounting,
    )
    for node in bed.nodes if args.slow else []:
        node.slow(args.slow)
    print(f"{bed.network.name}: {args.nodes} hosts are up")
    print(f"  hostfile    {bed.hostfile}\n  ssh config  {bed.ssh_config}")
    print(f"  try         ssh -F {bed.ssh_config} node1\n")
    if bed.options.slurm:
        print(f"  Slurm       export SLURM_CONF={bed.slurm.conf}")
        print("  or          python -m tests.testbed shell submit squeue\n")
        print(f"# in a job file\n{bed.cluster_section('slurm')}\n# or")
    print(f"# in a job file\n{bed.cluster_section()}")
    # The hosts live on without this process; Python would warn of children nobody waits for.
    sys.stdout.flush()
    os._exit(0)


def down(args: argparse.Namespace) -> int:
    """Take beds down; those that a living test run owns only when named."""
    found = {path.name: (path, state) for path, state in beds(args.dir).items()}
    if unknown := [name for name in args.bed if name not in found]:
        raise TestbedError(f"no bed {', '.join(unknown)} in {args.dir}; there: {', '.join(found) or 'none'}")
    names = args.bed or [name for name, (_, state) in found.items() if not _owned(state["owner"])]
    for name in names:
        clear(*found[name])
        print(f"{name} is down")
    for name in sorted(set(found) - set(names)):
        owner = found[name][1]["owner"]
        print(
            f"{name} {f'belongs to the running process {owner[0]}' if owner else 'stays'}; name it to end it"
        )
    with contextlib.suppress(OSError):
        args.dir.rmdir()
    return 0


def _owned(owner: list[int] | None) -> bool:
    return owner is not None and processes.start_time(owner[0]) == owner[1]


def status(args: argparse.Namespace) -> int:
    """List beds and hosts."""
    listing = []
    for path, state in beds(args.dir).items():
        bed = Testbed.load(path)
        hosts = []
        for node in bed.nodes:
            alive = processes.read(node.anchor) is not None
            running = [" ".join(p.argv) for p in node.processes()] if alive else []
            hosts.append({"name": node.name, "address": node.address, "up": alive, "processes": running})
        listing.append({"bed": path.name, "owner": (state["owner"] or [None])[0], "hosts": hosts})
    if args.json:
        print(json.dumps(listing, indent=1))
        return 0
    for one in listing:
        print(f"{one['bed']}  {'kept' if one['owner'] is None else 'of process ' + str(one['owner'])}")
        for host in one["hosts"]:
            print(f"  {host['name']:8} {host['address']:15} {'up' if host['up'] else 'dead'}")
            print("".join(f"    {line[:100]}\n" for line in host["processes"]), end="")
    return 0


def shell(args: argparse.Namespace) -> int:
    """Replace this process by a shell (or the given command) on a host."""
    bed = _the_bed(args)
    if args.user not in bed.users:
        raise TestbedError(f"no user {args.user!r} on this bed; there: {', '.join(bed.users)}")
    user = bed.users[args.user]
    argv = [word for word in args.argv if word != "--"] or ["bash"]
    if args.host == "submit":
        line, variables = bed.submit_command(argv, user=args.user), bed.submit_env(args.user)
    else:
        line = bed.node(args.host).command(argv, user=args.user, cwd=user.home)
        variables = CLEAN | user.variables
    variables["TERM"] = os.environ.get("TERM", "dumb")
    os.execve(line[0], line, variables)


def cable(args: argparse.Namespace) -> int:
    """Pull or plug a cable."""
    bed = _the_bed(args)
    end: Testbed | object = bed if args.host == "submit" else bed.node(args.host)
    getattr(end, f"{args.action}_cable")()
    return 0


def _the_bed(args: argparse.Namespace) -> Testbed:
    found = {path.name: path for path in beds(args.dir)}
    wanted = [args.bed] if args.bed else list(found)
    if len(wanted) != 1 or wanted[0] not in found:
        raise TestbedError(f"say which bed with --bed; up are: {', '.join(found) or 'none'}")
    return Testbed.load(found[wanted[0]])


def main() -> int:
    """Run one command; errors are one line on stderr and exit code 1."""
    args = parser().parse_args()
    commands = {"up": up, "down": down, "status": status, "shell": shell, "cable": cable}
    try:
        return commands[args.command](args)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
