"""`orchestrate check` on real hosts: what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import Site, wait_until
from tests.testbed import processes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.testbed.node import Node


def check(site: Site, *words: str, code: int | None = None, **changes: Any) -> dict[str, Any]:
    """Check a job of the site; return what `--json` says."""
    done = site.orchestrate("check", str(site.job(**changes)), "--json", "--timeout", "180", *words)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (code if code is not None else 1 - report["ok"]), done.stdout + done.stderr
    see_nothing_left(site)
    return dict(report)


def see_nothing_left(site: Site) -> None:
    """See that no process and no file of a check is on any host or here."""
    runs = site.folder / "runs"
    assert not runs.exists(), list(runs.iterdir())
    wait_until(lambda: not processes.find(str(runs)), lambda: processes.find(str(runs)))
    for node in site.bed.nodes if site.bed else []:
        wait_until(lambda node=node: not node.processes(), node.processes)
        found = _of_checks(node, str(runs))
        # Hosts without a /tmp of their own show what another worker's check has open; that goes by itself.
        wait_until(
            lambda node=node, found=found: not found & _of_checks(node, str(runs)), lambda found=found: found
        )


def _of_checks(node: Node, runs: str) -> set[str]:
    return set(node.run(["find", runs, "/tmp", "-maxdepth", "1", "-name", "*.check-*"]).stdout.splitlines())


def told(report: dict[str, Any], check_name: str) -> dict[str, str]:
    """Return what a check says of hosts: the first of the worst of each."""
    worst = sorted(report["findings"], key=lambda each: each["level"] != "bad")
    return {each["host"]: each["what"] for each in reversed(worst) if each["check"] == check_name}


def test_all_is_well(site: Site) -> None:
    report = check(site)
    assert (report["ok"], report["bad"]) == (True, [])
    skipped = {name: levels for name, levels in report["hosts"].items() if "bad" in levels.values()}
    assert skipped == {}
    first = report["hosts"][site.hosts[0]]
    asked = {"login", "control", "clock", "master", "interface", "job", "versions", "disk", "shared"}
    assert {name for name in asked if first[name] != "ok"} == set()
    assert "on all 2 hosts" in report["facts"]["python"]
    assert report["facts"]["run directory"] == "shared on all 2 hosts"


def test_a_person_gets_a_table_and_the_reasons(remote: Site) -> None:
    job = remote.job(train={"script": "/not/there.py"})
    done = remote.orchestrate("check", str(job), "--skip", "memory")  # each host measures its own
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["hosts", "login", "control", "clock"]
    assert lines[1].split()[0] == "node[1-2]"
    assert "BAD" in lines[1].split()
    assert "BAD   node[1-2]: job: the script /not/there.py does not exist here" in lines
    assert lines[-1].startswith("2 of 2 hosts would fail a run")


def test_chosen_checks_alone(local: Site) -> None:
    assert check(local, "--only", "disk,clock")["checks"] == ["login", "clock", "disk"]
    assert "gpus" not in check(local, "--skip", "gpus")["checks"]
    wrong = local.orchestrate("check", str(local.job()), "--only", "disc")
    assert (wrong.returncode, "no check 'disc'" in wrong.stderr) == (2, True)


def test_a_program_that_is_no_python_is_told_as_such(site: Site) -> None:
    report = check(site, "--only", "login,versions", train={"python": "/bin/true"})
    assert {levels["login"] for levels in report["hosts"].values()} == {"ok"}
    assert (
        "train.python /bin/true ended with 0 in place of running a program"
        in told(report, "job")[site.hosts[0]]
    )


# -- hosts that cannot be reached


def test_a_host_whose_cable_is_out_is_told_and_the_others_are_checked(remote: Site) -> None:
    with remote.pulled(remote.bed.node("node2")):
        report = check(remote, cluster={"ssh": {"connect_timeout": 8}})
    assert report["bad"] == ["node2"]
    assert told(report, "login")["node2"].startswith(("timeout: ", "no route: "))
    assert set(report["hosts"]["node2"].values()) == {"bad", "-"}
    assert report["hosts"]["node1"]["master"] == "ok"


def test_a_dead_master_leaves_the_way_to_it_untested(remote: Site) -> None:
    with remote.pulled(remote.bed.node("node1")):
        report = check(remote, cluster={"ssh": {"connect_timeout": 8}})
    assert report["bad"] == ["node1"]
    assert (report["hosts"]["node2"]["master"], report["hosts"]["node2"]["disk"]) == ("-", "ok")


def test_host_keys_are_told_apart(remote: Site) -> None:
    first, second = (line.split() for line in remote.bed.client.known_hosts.read_text().splitlines())
    path = remote.folder / "known_hosts"
    ssh = {"ssh": {"known_hosts": str(path)}}
    path.write_text(" ".join(first) + "\n")
    unknown = check(remote, cluster=ssh)
    assert (unknown["bad"], told(unknown, "login")["node2"][:17]) == (["node2"], "host key unknown:")
    path.write_text(" ".join(first) + "\n" + " ".join([second[0], *first[1:]]) + "\n")
    changed = check(remote, cluster=ssh)
    assert told(changed, "login")["node2"].startswith("host key changed:")


def test_a_refused_login_and_a_name_that_nobody_knows(remote: Site) -> None:
    key = remote.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config = remote.folder / "config"
    text = remote.bed.ssh_config.read_text().replace(str(remote.bed.client.key), str(key))
    config.write_text(text)
    refused = check(remote, cluster={"ssh": {"config": str(config)}})
    assert {text.split(":")[0] for text in told(refused, "login").values()} == {"login refused"}
    hostfile = remote.folder / "hostfile"
    hostfile.write_text("node1 slots=2\nnowhere.invalid slots=2\n")
    unknown = check(remote, cluster={"hostfile": str(hostfile)})
    assert unknown["bad"] == ["nowhere.invalid"]
    assert told(unknown, "login")["nowhere.invalid"].startswith("name unknown:")


def test_hosts_of_one_domain_keep_their_names(remote: Site) -> None:
    """Of such hosts pdsh prints the names without the domain."""
    names = {node.name: f"{node.name}.cluster.example" for node in remote.bed.nodes}
    config = remote.folder / "config"
    own = "".join(f"Host {names[n.name]}\n  HostName {n.outer_address}\n" for n in remote.bed.nodes)
    config.write_text(own + remote.bed.ssh_config.read_text())
    hostfile = remote.folder / "hostfile"
    hostfile.write_text("".join(f"{name} slots=2\n" for name in names.values()))
    cluster = {"hostfile": str(hostfile), "ssh": {"config": str(config)}}
    report = check(remote, cluster=cluster, train={"setup": ["test $(hostname) = node1"]})
    assert report["bad"] == [names["node2"]]
    assert "line 1 of train.setup" in told(report, "job")[names["node2"]]


# -- what a run would stumble over


def test_a_python_that_is_missing_hides_nothing_else(remote: Site) -> None:
    mine = remote.folder / "bin"
    mine.mkdir()
    (mine / "python").symlink_to(os.path.realpath("/usr/bin/python3"))
    remote.bed.node("node2").hide(mine)
    try:
        report = check(remote, train={"python": str(mine / "python")})
    finally:
        remote.bed.node("node2").run(["umount", str(mine)])
    assert "is not a program here" in told(report, "job")["node2"]
    assert report["hosts"]["node2"]["login"] == "ok"
    assert {report["hosts"]["node2"][name] for name in ("disk", "limits", "shared")} == {"ok"}
    assert report["hosts"]["node2"]["memory"] in ("ok", "warn")  # other tests may take much of it meanwhile


def test_a_setup_line_that_fails_is_told_with_its_number(remote: Site) -> None:
    report = check(remote, train={"setup": ["true", "test $(hostname) = node1"]})
    assert report["bad"] == ["node2"]
    assert "line 2 of train.setup" in told(report, "job")["node2"]


def test_more_slots_than_gpus(site: Site) -> None:
    if site.backend == "slurm":
        pytest.skip("Slurm says which GPUs there are")
    report = check(site, train={"env": {"CUDA_VISIBLE_DEVICES": "0"}})
    expected = site.hosts[1:] if site.backend == "local" else site.hosts
    assert set(expected) <= set(report["bad"])
    assert "asked for but CUDA_VISIBLE_DEVICES=0 shows 1 GPU" in told(report, "job")[expected[0]]


def test_a_run_directory_that_is_sent_is_no_fault_unless_said_to_be_shared(apart: Site) -> None:
    report = check(apart)
    assert (report["ok"], report["facts"]["run directory"]) == (True, "sent on all 2 hosts")
    said = check(apart, cluster={"shared_disk": True})
    assert said["bad"] == ["node1", "node2"]
    assert "does not see the run directory" in told(said, "login")["node1"]


def test_nothing_is_left_where_the_start_script_that_was_sent_fails(apart: Site) -> None:
    report = check(apart, train={"setup": ["test $(hostname) = node1"]})
    assert report["bad"] == ["node2"]
    assert "line 1 of train.setup" in told(report, "job")["node2"]
    assert report["hosts"]["node2"]["disk"] == "ok"


def test_a_disk_that_hosts_read_and_cannot_write(remote: Site) -> None:
    node = remote.bed.node("node2")
    mount = [
        "sh",
        "-c",
        f"mount --bind {remote.folder} {remote.folder} && mount -o remount,ro,bind {remote.folder}",
    ]
    assert node.run(mount).returncode == 0
    try:
        report = check(remote)
    finally:
        node.run(["umount", str(remote.folder)])
    assert report["bad"] == ["node2"]
    assert "Read-only file system" in told(report, "disk")["node2"]
    assert report["hosts"]["node2"]["shared"] == "bad"


def test_a_full_disk_and_one_that_is_not_mounted(remote: Site) -> None:
    saved = remote.folder / "saved" / "checkpoints"
    saved.mkdir(parents=True)
    node = remote.bed.node("node2")
    train = {"checkpoint_dir": str(saved)}
    node.run(["mount", "-t", "tmpfs", "-o", "size=1m", "full", str(saved)])
    try:
        node.run(["sh", "-c", f"head -c 2m /dev/zero > {saved}/x"])
        full = check(remote, train=train)
    finally:
        node.run(["umount", str(saved)])
    assert full["bad"] == ["node2"]
    assert "No space left on device" in told(full, "disk")["node2"]
    node.hide(saved.parent)
    try:
        absent = check(remote, train=train)
    finally:
        node.run(["umount", str(saved.parent)])
    assert (absent["ok"], absent["hosts"]["node2"]["disk"]) == (True, "warn")
    assert f"{saved} is there on most hosts, and here only {saved.parent}" in told(absent, "disk")["node2"]


def test_a_taken_port_and_a_wrong_interface(remote: Site) -> None:
    node = remote.bed.node("node1")
    code = "import socket, time; s = socket.create_server(('', 29755)); print(1, flush=True); time.sleep(600)"
    command = node.command([os.path.realpath("/usr/bin/python3"), "-c", code])
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        done = remote.orchestrate("check", str(remote.job(train={"master_port": 29755})), "--json")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    report = json.loads(done.stdout)
    assert (done.returncode, report["bad"]) == (1, ["node1"])
    assert "train.master_port 29755 is not free" in told(report, "master")["node1"]
    wrong = check(remote, train={"interface": "ib7"})
    assert told(wrong, "interface")["node2"].startswith("it has no ib7, only lo")


def test_a_master_that_one_host_cannot_reach(remote: Site) -> None:
    node = remote.bed.node("node2")
    blocked = [remote.bed.node("node1").address, remote.bed.node("node1").address6]
    for address in blocked:
        node.run(["ip", "route", "add", "blackhole", address])
    try:
        report = check(remote)
    finally:
        for address in blocked:
            node.run(["ip", "route", "del", "blackhole", address])
    assert report["bad"] == ["node2"]
    assert "cannot reach the master node1 on port" in told(report, "master")["node2"]


def test_a_host_that_cannot_connect_back(remote: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = remote.orchestrate("check", str(remote.job(cluster={"control_port": port})))
    assert (busy.returncode, "cannot listen" in busy.stderr) == (3, True)
    report = check(remote, cluster={"control_address": "10.77.0.253"})
    assert report["bad"] == ["node1", "node2"]
    assert "no way back to the submit host" in told(report, "control")["node1"]


def test_nvme_is_measured_where_the_job_offloads_to_it(local: Site) -> None:
    folder = local.folder / "nvme"
    folder.mkdir()
    offload = {"offload_param": "nvme", "offload_param_nvme_path": str(folder)}
    report = check(local, deepspeed={"zero_stage": 3, **offload, "micro_batch_per_gpu": 1})
    assert report["hosts"]["host-0"]["nvme"] in ("ok", "warn")
    assert "read" in report["facts"]["NVMe"]
    assert list(folder.iterdir()) == []


def test_processes_of_other_runs_are_told(remote: Site) -> None:
    run = remote.submit("other", train={"args": ["--sleep", "300"]})
    run.wait_for_ranks()
    done = remote.orchestrate("check", str(remote.job()), "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert run.run_id in told(report, "leftovers")["node1"]
    remote.orchestrate("cancel", run.run_id)
    run.wait()
    run.see_nothing_left()


# -- leaving bad hosts out


def test_bad_hosts_are_left_out_of_the_job_file(remote: Site) -> None:
    job = remote.job(train={"setup": ["test $(hostname) = node2"]})
    job.write_text("# my job\n" + job.read_text())
    done = remote.orchestrate("check", str(job), "--drop-bad")
    assert done.returncode == 0, done.stderr
    assert 'exclude: "node1"' in job.read_text()
    assert job.read_text().startswith("# my job\n")
    assert "the job still fits: 1 host, 2 ranks" in done.stderr
    assert json.loads(remote.orchestrate("check", str(job), "--json").stdout)["ok"] is True


def test_a_job_that_would_not_fit_any_more_is_left_as_it_is(remote: Site) -> None:
    job = remote.job(cluster={"nodes": 2}, train={"setup": ["test $(hostname) = node2"]})
    before = job.read_text()
    done = remote.orchestrate("check", str(job), "--drop-bad")
    assert done.returncode != 0
    assert "without node1 the job does not fit" in done.stderr
    assert job.read_text() == before


def test_where_every_host_is_bad_there_is_none_to_leave_out(local: Site) -> None:
    job = local.job(train={"python": "/bin/true"})
    before = job.read_text()
    done = local.orchestrate("check", str(job), "--only", "versions", "--drop-bad")
    assert done.returncode == 1
    assert "every host fails" in done.stderr
    assert job.read_text() == before


# -- Slurm


def test_slurm_is_asked_for_hosts_and_gets_them_back(slurm: Site) -> None:
    done = slurm.orchestrate("check", str(slurm.job()), "--skip", "memory")  # as above
    assert done.returncode == 0, done.stdout + done.stderr
    assert "salloc: Granted job allocation" in done.stderr
    assert done.stdout.splitlines()[1].split()[0] == "node[1-2]"
    assert slurm.bed.slurm.run("squeue", "--noheader", "--states=R,PD").stdout == ""
    refused = slurm.orchestrate("check", str(slurm.job(cluster={"slurm": {"partition": "nope"}})))
    assert (refused.returncode, "Slurm gives no hosts: " in refused.stderr) == (3, True)


def test_an_allocation_that_the_user_holds_is_used_and_kept(slurm: Site) -> None:
    argv, environ = slurm.command("check", str(slurm.job()), "--json")
    words = ["salloc", "--quiet", "--nodes=2", "--gres=gpu:2", "bash", "-c", '"$@" && squeue -h >&2', "x"]
    line = slurm.bed.slurm.command(*words, *argv)
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(line, env=environ, cwd=slurm.folder, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True
    assert " R " in done.stderr.splitlines()[-1]
    see_nothing_left(slurm)


# -- nothing is left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interruption(detached: Site, number: int) -> None:
    interrupt(detached, number)


def test_nothing_is_left_after_an_interruption_where_files_were_sent(apart: Site) -> None:
    interrupt(apart, signal.SIGINT)


def interrupt(site: Site, number: int) -> None:
    """Interrupt a check while hosts are at it; see that nothing of it is left."""
    stalled = site.folder / "stalled"
    argv, environ = site.command("check", str(site.job(train={"env": {"PYTHONSTARTUP": "x"}})))
    os.mkfifo(stalled)
    seconds = f"4321.{os.getpid()}"
    slow = {"setup": [f"touch {(site.shared or site.folder)}/here-$$; sleep {seconds}"]}
    argv[-1] = str(site.job(train=slow))
    process = subprocess.Popen(
        argv, env=environ, cwd=site.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        started = lambda: list((site.shared or site.folder).glob("here-*"))  # noqa: E731 - two words
        wait_until(lambda: len(started()) == 2, started)
        process.send_signal(number)
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    wait_until(lambda: not asleep(seconds), lambda: asleep(seconds))
    see_nothing_left(site)


def asleep(seconds: str) -> list[processes.Process]:
    """Return the processes that sleep for so long, on any host; who asks for an odd time finds its own."""
    return [process for process in processes.everything() if process.argv[-1] == seconds]


# -- the network between hosts


def test_a_slow_link_is_told_when_the_network_is_measured(make_bed: Any, tmp_path: Path) -> None:
    bed = make_bed(nodes=4, slots=1)
    site = Site("pdsh", tmp_path, bed)
    for node in bed.nodes:  # by its link all the while, and not by how busy this machine is meanwhile
        node.slow("20mbit" if node.name == "node3" else "200mbit")
    report = check(site, "--only", "master", "--all-reduce", train={"env": {"OMP_NUM_THREADS": "1"}})
    assert report["checks"] == ["login", "master", "links"]
    assert report["bad"] == ["node3"]
    assert {levels["links"] for levels in report["hosts"].values()} >= {"ok", "bad"}
    assert "its network is" in told(report, "links")["node3"]


# -- what programs bring


def test_operators_and_data_are_asked_for_where_the_job_needs_them(site: Site) -> None:
    extensions = site.folder / "extensions"
    env = {"TORCH_EXTENSIONS_DIR": str(extensions), "DS_ACCELERATOR": "cpu"}
    deepspeed = {"zero_stage": 3, "micro_batch_per_gpu": 1, "offload_optimizer": "cpu"}
    deepspeed |= {"optimizer": {"type": "Adam"}}
    args = ["--train_file", str(site.folder / "no such file")]
    report = check(site, "--only", "ops,reach", train={"env": env, "args": args}, deepspeed=deepspeed)
    assert set(report["bad"]) == set(site.hosts)
    assert "there is no such path" in told(report, "reach")[site.hosts[0]]
    assert "cpu_adam" in report["facts"]["ops"]
    assert not extensions.exists()


# -- hosts that hang


def test_a_host_that_hangs_costs_no_more_than_the_time_limit(site: Site) -> None:
    """Whatever hangs there is ended, although the probes that look after it have not even started."""
    seconds = f"4321.{os.getpid()}"  # which tells our sleeper from that of another worker
    last_words = f"trap 'echo it was ended >&2; exit 1' TERM; sleep {seconds} & wait"
    hangs = f"case $orchestrate_host in {site.hosts[1]}) {last_words};; esac"
    report = check(site, "--timeout", "20", train={"setup": [hangs]})
    assert report["bad"] == [site.hosts[1]]
    assert told(report, "login")[site.hosts[1]] == "no answer in 20 s"
    wait_until(lambda: not asleep(seconds), lambda: asleep(seconds))


def test_a_host_that_is_slow_to_come_finds_the_master_still_there(local: Site) -> None:
    """However much later than half a lease it comes: the master is given signs of life meanwhile."""
    slow = f"case $orchestrate_host in {local.hosts[1]}) sleep 8;; esac"
    report = check(local, lease=6, train={"setup": [slow]})
    assert report["ok"], report["findings"]
    assert report["hosts"][local.hosts[1]]["master"] == "ok"


def test_a_command_everywhere(site: Site, tmp_path: Path) -> None:
    """As other commands of ours may use it: the python of the run, files brought along, exit codes."""
    if site.backend == "slurm":
        pytest.skip("the allocation is another test's")
    from orchestrator.job import load_job
    from orchestrator.preflight.fanout import run_everywhere
    from orchestrator.prepare import prepare

    prepared = prepare(load_job(site.job(train={"env": {"WORD": "a b"}})), os.environ)
    told_word = "print(sys.argv[1], os.environ['WORD'], open('data').read())"
    program = f"import os, sys; {told_word}; sys.exit(len(sys.argv[1]))".encode()
    answers = run_everywhere(
        prepared, lambda host: ["python", "p.py", "x" * host.index], {"p.py": program, "data": b"1"}, 180
    )
    assert {name: answer.exit for name, answer in answers.items()} == dict(
        zip(site.hosts, (0, 1), strict=True)
    )
    assert answers[site.hosts[1]].stdout == ["x a b 1"]
    see_nothing_left(site)
