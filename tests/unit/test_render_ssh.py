"""The rendered ssh configuration, as the real ssh reads it; templates of the user's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import JobFileError
from orchestrator.plan import SshPlan
from orchestrator.render import TEMPLATES, builtin_templates, jump_hosts, node_command, pdsh_command, render
from tests import samples

HOSTS = samples.pool(
    "node1 slots=1\nme@node2 slots=1 port=2222\nnode3 slots=1 address=10.0.0.3\n"
    "fd00::4 slots=1\nfe80::5%eth0 slots=1\n"
)
USERS_OWN = """
Host node1
    HostName node1.internal
    User theirs
    Port 2022
Host gate
    HostName gate.example.org
    User gatekeeper
Host *
    ServerAliveInterval 77
    ConnectTimeout 99
"""


@pytest.fixture
def asked(tmp_path):
    """Return a function that asks the real ssh what it makes of a plan's configuration for a host."""

    def ask(host: str, *, own: str = USERS_OWN, run_dir: Path | None = None, **ssh) -> dict[str, list[str]]:
        config = tmp_path / "their own *? [config]"
        config.write_text(own)
        run_dir = run_dir or tmp_path / "run"
        plan = samples.plan(
            HOSTS, backend="pdsh", run_dir=str(run_dir), ssh=SshPlan(config=str(config), **ssh)
        )
        rendered = Path(plan.attempt_dir(1)) / "rendered"
        rendered.mkdir(parents=True, exist_ok=True)
        (text,) = (file.text for file in render(plan) if file.path.endswith("ssh_config"))
        (rendered / "ssh_config").write_text(text)
        command = ["ssh", "-T", "-G", "-F", "ssh_config", host]
        done = subprocess.run(command, cwd=rendered, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(value)
        return found

    return ask


def place(options: dict[str, list[str]]) -> tuple[str, str, str]:
    return options["user"][0], options["hostname"][0], options["port"][0]


def test_the_users_own_configuration_counts_where_nothing_else_is_said(asked):
    options = asked("node1")
    assert place(options) == ("theirs", "node1.internal", "2022")
    assert options["serveraliveinterval"] == ["77"]
    assert (options["batchmode"], options["connecttimeout"]) == (["yes"], ["10"])
    assert "proxyjump" not in options
    assert asked("node1", own="")["serveraliveinterval"] == ["15"]


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("node1", ("trainer", "node1.internal", "2200")),
        ("node2", ("me", "node2", "2222")),
        ("node3", ("trainer", "10.0.0.3", "2200")),
        ("host-3", ("trainer", "fd00::4", "2200")),
        ("host-4", ("trainer", "fe80::5%eth0", "2200")),
    ],
)
def test_the_hostfile_goes_before_the_job_and_the_job_before_the_users_own(asked, alias, expected):
    assert place(asked(alias, user="trainer", port=2200)) == expected


def test_a_jump_host_is_for_the_hosts_and_not_for_itself(asked):
    jump = {"user": "trainer", "port": 2200, "jump": "gate, me@[fd00::9]:2022"}
    assert asked("node2", **jump)["proxyjump"] == ["gate,me@[fd00::9]:2022"]
    gate = asked("gate", **jump)
    assert place(gate) == ("gatekeeper", "gate.example.org", "22")
    assert "proxyjump" not in gate
    assert "proxyjump" not in asked("fd00::9", **jump)
    assert asked("node2", jump="me@gate:22")["proxyjump"] == ["me@gate:22"]


def test_keys_and_any_other_option_are_passed_on(asked, tmp_path):
    for name in ("my key", "known 100% 'hosts'"):
        (tmp_path / name).touch()
    options = asked(
        "node1",
        identity=str(tmp_path / "my key"),
        known_hosts=str(tmp_path / "known 100% 'hosts'"),
        accept_new_host_keys=True,
        connect_timeout=3,
        options={
            "Compression": "yes",
            "ServerAliveInterval": "5",
            "ProxyCommand": "nc -X '5' %h \"%p\"",
            "SendEnv": "LC_ALL LANG",
            "RemoteForward": "8080 localhost:80",
        },
    )
    assert options["identityfile"][0] == str(tmp_path / "my key")
    assert options["userknownhostsfile"] == [str(tmp_path / "known 100% 'hosts'")]
    assert options["stricthostkeychecking"] == ["accept-new"]
    assert (options["connecttimeout"], options["compression"]) == (["3"], ["yes"])
    assert options["serveraliveinterval"] == ["5"]
    assert options["proxycommand"] == ["nc -X '5' %h \"%p\""]
    assert options["sendenv"][:2] == ["LC_ALL", "LANG"]
    assert options["remoteforward"] == ["8080 [localhost]:80"]


@pytest.mark.parametrize("name", ["run", 'it\'s "$HOME" `id` ; & *? [a-z] \\ end', "trailing\\"])
def test_the_forward_of_the_control_port_is_read_from_any_run_directory(asked, tmp_path, name):
    rendered = tmp_path / name / "attempt-1/rendered"
    rendered.mkdir(parents=True)
    (rendered / "ssh_forward").write_text("Match all\n    RemoteForward 127.0.0.1:4000 127.0.0.1:4000\n")
    assert asked("node1", run_dir=tmp_path / name)["remoteforward"] == ["[127.0.0.1]:4000 [127.0.0.1]:4000"]


@pytest.mark.parametrize("value", ["a\nProxyCommand id", "a\tb", "a\x7f"])
def test_a_value_that_would_be_another_line_is_refused(value):
    with pytest.raises(JobFileError, match="cannot be written into an ssh configuration"):
        render(samples.plan(backend="pdsh", ssh=SshPlan(options={"SetEnv": value})))
    with pytest.raises(JobFileError, match="is not one word"):
        render(samples.plan(backend="pdsh", ssh=SshPlan(options={value: "x"})))


@pytest.mark.parametrize(
    ("jump", "hosts"),
    [
        (None, ()),
        ("", ()),
        ("gate", ("gate",)),
        ("me@gate:22", ("gate",)),
        ("a@b@gate, [fd00::1]:22 ,last", ("gate", "fd00::1", "last")),
    ],
)
def test_the_hosts_in_a_jump(jump, hosts):
    assert jump_hosts(jump) == hosts


def test_pdsh_gets_the_hosts_name_and_its_percent_signs_doubled():
    assert node_command("/runs/100%h", "n")[-1] == "n"
    shown = pdsh_command("/runs/100%h it's")
    assert shown.endswith(" node '/runs/100%%h it'\"'\"'s/rendered/node.sh' %h")
    said = subprocess.run(
        ["sh", "-c", shown.replace("%%", "%").replace("%h", "node1")], capture_output=True, check=False
    )
    assert (said.returncode, said.stdout) == (97, b"")


# -- templates of the user's own ----------------------------------------------------------------------


def with_template(folder: Path, text: str, name: str = "hosts.txt.j2") -> dict[str, str]:
    """Render with one template of the user's; return the files' texts by name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return {Path(file.path).name: file.text for file in render(samples.plan(templates=str(folder)))}


def test_a_template_of_the_users_replaces_ours_of_that_name_and_no_other(tmp_path):
    files = with_template(tmp_path, "{# mine #}{{ plan.name|sh }} {{ plan.world_size }}\n")
    ours = {Path(file.path).name: file.text for file in render(samples.plan())}
    assert files == ours | {"hosts.txt": "job 4\n"}


def test_a_template_of_the_users_may_extend_ours(tmp_path):
    builtin = (builtin_templates() / "launch.sh.j2").read_text()
    files = with_template(tmp_path, "#!/bin/sh\n" + builtin.split("\n", 1)[1], "launch.sh.j2")
    assert files["launch.sh"].startswith("#!/bin/sh\n# Runs the whole job")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one\n{{ plan.name }}\n", "prints 'job' without a quoting filter"),
        ("{{ plan.name|sh|upper }}", "without a quoting filter"),
        ("{{ plan.name|sh ~ plan.name }}", "without a quoting filter"),
        ("{{ plan.snapshot }}", "prints False without a quoting filter"),
        ("{{ plan.master_addr }}", "prints None without a quoting filter"),
        ("{{ plan.nothing }}", "has no attribute 'nothing'"),
        ("{{ nothing|sh }}", "'nothing' is undefined"),
        ("{% if nothing %}{% endif %}", "'nothing' is undefined"),
        ("a\n{% for %}", "2: Expected"),
        ("{{ 'two words'|word }}", "'two words' is not one word"),
        ("{{ '#comment'|word }}", "is not one word"),
        ("{{ 'a\0b'|sh }}", "NUL"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_the_job_files_mistake(tmp_path, text, told):
    with pytest.raises(JobFileError) as caught:
        with_template(tmp_path, text)
    (problem,) = caught.value.problems
    assert told in str(problem)
    assert "hosts.txt.j2" in problem.where
    assert "quoting filter" in problem.fix


def test_a_comment_stays_on_its_line():
    (launch,) = (f.text for f in render(samples.plan(name="two\nrm -rf lines")) if f.path == "launch.sh")
    assert "two rm -rf lines" in launch


def test_every_template_is_used_and_every_used_one_is_there():
    assert {path.name for path in builtin_templates().iterdir()} == {
        *TEMPLATES.values(),
        "launch.sh.j2",
        "slurm.sbatch.j2",
    }
