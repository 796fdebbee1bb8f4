from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import HostfileError
from orchestrator.hosts import Host, local_pool, parse_hostfile, read_hostfile

HOSTFILES = Path(__file__).parents[2] / "hostfiles"
FOUR = (0, 1, 2, 3)


def problems_of(text):
    with pytest.raises(HostfileError) as caught:
        parse_hostfile(text, "hosts")
    return caught.value.problems


def only(text):
    (host,) = parse_hostfile(text, "hosts").hosts
    return host


@pytest.mark.parametrize(
    "line",
    [
        "w slots=4",
        "w\tslots=4",
        "  w   slots=4  ",
        "w slots=04",
        "w slots=4 max_slots=8",
        "w slots=4 # a comment",
        "w slots=4 #slots=9",
        "w slots=4\r",
    ],
)
def test_what_deepspeed_reads_as_intended_gives_four_slots(line):
    assert only(line) == Host("w", FOUR)


def test_order_is_the_order_of_lines_and_comments_and_blank_lines_are_skipped():
    pool = parse_hostfile("# first\n\nb slots=2\n   # slots=9\na slots=1\n\t\nc slots=1", "hosts")
    assert [(host.name, host.slots) for host in pool.hosts] == [("b", (0, 1)), ("a", (0,)), ("c", (0,))]
    assert pool.world_size == 4


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("bob@w slots=4", Host("w", FOUR, user="bob")),
        ("w slots=4 user=bob port=2222", Host("w", FOUR, user="bob", port=2222)),
        ("w slots=4 address=10.0.0.7", Host("w", FOUR, address="10.0.0.7")),
        ("w slots=4 address=w.example # there", Host("w", FOUR, address="w.example")),
        ("w slots=4 address=[fe80::1]", Host("w", FOUR, address="fe80::1")),
        ("fe80::1 slots=4", Host("fe80::1", FOUR)),
        ("fe80::1%eth0 slots=4", Host("fe80::1%eth0", FOUR)),
        ("[fe80::1] slots=4", Host("fe80::1", FOUR)),
        ("[::1]:2222 slots=4", Host("::1", FOUR, port=2222)),
        ("bob@[::1]:2222 slots=4", Host("::1", FOUR, user="bob", port=2222)),
        ("fe80::1:2222 slots=4", Host("fe80::1:2222", FOUR)),
    ],
)
def test_user_port_and_address_have_a_way_to_be_said(line, host):
    assert only(line) == host


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("w", "no slots=N"),
        ("w 4", 'did you mean "w slots=4"?'),
        ("w:4", 'did you mean "w slots=4"?'),
        ("w gpus=4", 'did you mean "w slots=4"?'),
        ("w slots = 4", 'did you mean "w slots=4"?'),
        ("w port=22 slots=4", 'did you mean "w slots=4 port=22"?'),
        ("this is bad slots=1", "write HOST slots=N"),
        ("w slots=-1", "slots=-1 is not a whole number"),
        ("w slots=4x", "slots=4x is not a whole number"),
        ("w slots=4,arch=a100", "slots=4,arch=a100 is not"),
        ("w slots=\u0664", "not a whole number"),
        ("w slots=0", "slots=0 is not a number from 1 to"),
        ("w slots=99999", "slots=99999 is not a number from 1 to"),
        ("w slots=" + "9" * 5000, "is not a number from 1 to"),
        ("w slots=4 slots=8", "slots= is given twice"),
        ("w slots=4 junk", "'junk' after slots= means nothing"),
        ("w slots=4 max-slots=8", "did you mean max_slots=?"),
        ("w slots=4 adress=x", "did you mean address=?"),
        ("w slots=4 max_slots=2", "max_slots=2 is less than slots=4"),
        ("w slots=4 port=0", "port=0 is not a number from 1 to 65535"),
        ("w slots=4 port=22 port=23", "port= is given twice"),
        ("w slots=4 address=a/b", "neither a host name nor an IP address"),
        ("a@w slots=4 user=b", "the user is given twice"),
        ("[::1]:22 slots=4 port=23", "the port is given twice"),
        ("@w slots=4", "'' is not a user name"),
        ("-oProxyCommand=x@w slots=4", "is not a user name"),
        ("-w slots=4", "pdsh reads a leading '-'"),
        ("^w slots=4", "pdsh reads a leading '^'"),
        ("/w/ slots=4", "pdsh reads a leading '/'"),
        ("a,b slots=4", "holds a comma"),
        ("ssh:w slots=4", "pdsh reads what is before ':'"),
        ("w:2222 slots=4", "w slots=N port=2222"),
        ("w;reboot slots=4", "is not a host name"),
        ("../w slots=4", "is not a host name"),
        ("caf\u00e9 slots=4", "is not a host name"),
        ("w\u200b slots=4", "is not a host name"),
        ("w" * 231 + " slots=4", "a host name of 231 characters"),
        ("[fe80::xyz] slots=4", "is not an IPv6 address"),
        ("n[1-2] slots=4 address=x", "one address= for several hosts"),
        ("n[3-1] slots=4", "runs backwards"),
        ("n[1-2 slots=4", "a bracket has no partner"),
        ("n[] slots=4", "'' is not a number"),
        ("n[a-c] slots=4", "'a-c' is not a number"),
        ("n[01-100] slots=4", "different widths"),
        ("n[1-999999999999] slots=4", "longer than"),
        ("n[1-1000][1-1000] slots=4", "a range of 1000000 names"),
    ],
)
def test_nonsense_is_an_error_that_names_the_line_and_a_way_out(line, says):
    (problem,) = problems_of(f"# first line\n{line}\n")
    assert problem.where == "hosts:2"
    assert problem.fix
    assert says in str(problem)


def test_every_bad_line_is_reported_at_once():
    problems = problems_of("a slots=4x\nb slots=2\nc\n\nb slots=1\nd slots=0")
    assert [problem.where for problem in problems] == ["hosts:1", "hosts:3", "hosts:5", "hosts:6"]


@pytest.mark.parametrize(
    "second", ["w1 slots=4", "W1 slots=2", "bob@w1 slots=4", "w[0-2] slots=1", "w1 slots=4 port=23"]
)
def test_a_host_named_twice_is_an_error_that_names_both_lines(second):
    (problem,) = problems_of(f"w1 slots=4\n{second}")
    assert problem.where == "hosts:2"
    assert "w1 is already on line 1" in problem.what.lower()


def test_two_spellings_of_one_ipv6_address_are_one_host():
    (problem,) = problems_of("::1 slots=1\n[0:0:0:0:0:0:0:1] slots=1")
    assert "already on line 1" in problem.what


def test_a_range_that_overlaps_itself_is_an_error():
    (problem,) = problems_of("n[1-3,2] slots=1")
    assert "n2 is already" in problem.what


def test_a_byte_order_mark_is_an_error_and_the_rest_is_still_checked():
    mark, zero = problems_of("\ufeffw slots=4\nv slots=0")
    assert (mark.where, zero.where) == ("hosts:1", "hosts:2")
    assert "byte order mark" in mark.what


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n"])
def test_a_hostfile_without_a_host_is_an_error(text):
    (problem,) = problems_of(text)
    assert problem.what == "the hostfile names no host"


def test_lines_end_where_python_ends_them_when_it_reads_a_file():
    text = "a slots=1\rb slots=1\r\nc slots=1\nd\u2028slots=1\n"
    assert [host.name for host in parse_hostfile(text, "hosts").hosts] == ["a", "b", "c", "d"]
    (problem,) = problems_of(f"{text}e")
    assert problem.where == "hosts:5"


def test_a_long_bad_line_is_clipped_and_control_characters_are_shown():
    (problem,) = problems_of("w\x1b[31m" + "x" * 500)
    assert "\x1b" not in str(problem)
    assert len(problem.value) < 120


def test_a_missing_hostfile_is_an_error_and_not_a_local_run(tmp_path):
    with pytest.raises(HostfileError, match="does not exist") as caught:
        read_hostfile(tmp_path / "hosts")
    assert caught.value.problems[0].where == str(tmp_path / "hosts")


def test_a_folder_or_a_binary_file_is_an_error(tmp_path):
    with pytest.raises(HostfileError, match="Is a directory"):
        read_hostfile(tmp_path)
    path = tmp_path / "hosts"
    path.write_bytes(b"a slots=1\nb\xff slots=1\n")
    with pytest.raises(HostfileError, match=r"hosts:2: .*not UTF-8"):
        read_hostfile(path)


def test_a_hostfile_is_read_as_utf8(tmp_path):
    path = tmp_path / "hosts"
    path.write_bytes("w slots=4 # caf\u00e9\r\n".encode())
    assert read_hostfile(path).hosts == (Host("w", FOUR),)


def test_local_hosts_have_slots_from_zero_each():
    assert local_pool(2, 2).hosts == (Host("host-0", (0, 1)), Host("host-1", (0, 1)))


def test_ten_thousand_hosts_come_from_one_range_or_from_as_many_lines():
    ranged = parse_hostfile("node[00001-10000] slots=8", "hosts")
    listed = parse_hostfile("".join(f"node{i:05d} slots=8\n" for i in range(1, 10_001)), "hosts")
    assert ranged == listed
    assert ranged.world_size == 80_000


def test_sample_two_nodes():
    assert read_hostfile(HOSTFILES / "two-nodes").hosts == (
        Host("worker-0", tuple(range(8))),
        Host("worker-1", tuple(range(8))),
    )


def test_sample_range():
    pool = read_hostfile(HOSTFILES / "range-128")
    assert [pool.hosts[0].name, pool.hosts[-1].name] == ["node001", "node128"]
    assert pool.world_size == 1024


def test_sample_mixed_slots():
    pool = read_hostfile(HOSTFILES / "mixed-slots")
    assert [(host.name, len(host.slots)) for host in pool.hosts] == [
        ("big-1", 8),
        ("big-2", 8),
        ("small-1", 4),
        ("small-2", 4),
    ]


def test_sample_login_and_address():
    assert read_hostfile(HOSTFILES / "login-and-address").hosts == (
        Host("gpu-a", FOUR, user="trainer"),
        Host("gpu-b", FOUR, address="10.0.0.12"),
        Host("gpu-c", FOUR, user="trainer", port=2222),
        Host("gpu-d", FOUR, address="gpu-d.internal.example", port=2222),
    )


def test_sample_ipv6():
    two = (0, 1)
    assert read_hostfile(HOSTFILES / "ipv6").hosts == (
        Host("fd00:10::1", two),
        Host("fd00:10::2", two),
        Host("fd00:10::3", two, port=2222),
        Host("fe80::4%eth0", two),
        Host("worker-5", two, address="fd00:10::5"),
    )


def test_reading_hosts_loads_nothing_heavy():
    code = (
        "import sys, orchestrator.cli.hosts; from orchestrator.hosts import dialects, pool, topology;"
        "heavy = {'torch', 'deepspeed', 'paramiko', 'rich.table', 'ClusterShell', 'pydantic', 'yaml'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
