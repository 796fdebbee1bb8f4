"""What Prometheus is told, and that a real one takes it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.cli.metrics import _active
from orchestrator.monitor.metrics.prometheus import Latest, text
from orchestrator.monitor.metrics.select import KINDS, Selected, Selection
from orchestrator.monitor.metrics.serve import MetricsServer
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.contract.product import wait_until
from tests.made_run import made_run
from tests.ports import free_port
from tests.receivers import served
from tests.testbed.fixtures import require


@pytest.fixture
def run(here):
    return made_run(here / "runs", hosts=2, slots=2, steps=30, slow=1)


def add(run, **record) -> None:
    with run.metrics_file.open("a") as file:
        file.write(json.dumps({"time": 1790000100.0, "attempt": 1, "host": "node-0", **record}) + "\n")


def values(said: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of a text in Prometheus' format, as its own client reads them."""
    return {
        family.name: {tuple(one.labels.values()): one.value for one in family.samples}
        for family in text_string_to_metric_families(said)
    }


def test_prometheus_gets_the_newest_value_of_each(run):
    latest = Latest("job-made")
    latest.add(Selected(run, Selection(KINDS)).new())
    found = values(text([(latest, State.RUNNING)]))
    assert found["orchestrate_step"] == {("job-made", "node-0", "0"): 30.0}
    assert found["orchestrate_gpu_power_watts"]["job-made", "node-1", "2"] == 450.0
    assert found["orchestrate_gpu_throttled"] == {
        ("job-made", "node-0", "0"): 0.0,
        ("job-made", "node-0", "1"): 0.0,
        ("job-made", "node-1", "2"): 1.0,
        ("job-made", "node-1", "3"): 1.0,
    }
    assert found["orchestrate_host_memory_bytes"]["job-made", "node-1"] == 200 << 30
    states = found["orchestrate_run_state"]
    assert [labels[1] for labels, value in states.items() if value] == ["RUNNING"]
    assert len(states) == len(State)


def test_a_new_attempt_forgets_the_old_one_and_an_ended_run_all(run):
    latest = Latest("job-made")
    step = {"time": 1.0, "kind": "step", "rank": 0, "step": 5}
    latest.add([step | {"attempt": 1, "host": "a", "loss": 2.0}, step | {"attempt": 2, "host": "b"}])
    latest.add([step | {"attempt": 1, "host": "a"}])  # late words of the first
    found = values(text([(latest, State.RUNNING)]))
    assert found["orchestrate_step"] == {("job-made", "b", "0"): 5.0}
    assert "orchestrate_loss" not in found
    assert set(values(text([(latest, State.FAILED)]))) == {
        "orchestrate_run_state",
        "orchestrate_run_attempt",
        "orchestrate_last_metric_timestamp_seconds",
    }


def test_odd_names_and_numbers_are_written_so_that_the_client_reads_them():
    latest = Latest('odd "name"\\')
    record = {"time": 1.0, "attempt": 1, "kind": "step", "host": "h\n", "rank": 0, "step": 1}
    latest.add([record | {"loss": "NaN", "grad norm/x": "Infinity", "words": "no number", "flag": None}])
    found = values(text([(latest, State.RUNNING)]))
    assert found["orchestrate_grad_norm_x"] == {('odd "name"\\', "h\n", "0"): float("inf")}
    assert str(next(iter(found["orchestrate_loss"].values()))) == "nan"
    assert not {"orchestrate_words", "orchestrate_flag"} & set(found)


def test_the_server_answers_with_what_has_come_by_then(run):
    def ask(server, path="/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}") as answer:
            return answer.headers["Content-Type"], values(answer.read().decode())

    run.verdict_file.unlink()
    with served(MetricsServer(lambda: [run], ("127.0.0.1", 0))) as server:
        kind, found = ask(server)
        assert kind.startswith("text/plain; version=0.0.4")
        assert set(found["orchestrate_step"].values()) == {30.0}
        add(run, kind="step", rank=0, step=31)
        assert set(ask(server)[1]["orchestrate_step"].values()) == {31.0}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(server, "/other")


def test_all_runs_that_go_on_are_served_and_an_end_is_seen(run):
    root = run.path.parent
    run.verdict_file.unlink()
    write_json(run.record_file, run.record() | {"supervisor": samples.supervisor_record(os.getpid())})
    other = made_run(root, hosts=1, slots=1, steps=5, run_id="job-other")
    server = MetricsServer(lambda: _active(root), ("127.0.0.1", 0))
    with served(server):
        assert set(values(server.text())["orchestrate_step"]) == {("job-made", "node-0", "0")}
        other.verdict_file.unlink()
        assert set(values(server.text())["orchestrate_step"].values()) == {30.0, 5.0}
        run.write_verdict({"state": "FAILED", "summary": "", "ended": time.time()})
        found = values(server.text())
        assert set(found["orchestrate_step"].values()) == {5.0}
        assert found["orchestrate_run_state"]["job-made", "FAILED"] == 1
        run.write_verdict({"state": "FAILED", "summary": "", "ended": time.time() - 4000})
        assert {labels[0] for labels in values(server.text())["orchestrate_run_state"]} == {"job-other"}


def test_a_port_that_is_taken_is_an_error_with_a_fix(run):
    with served(MetricsServer(lambda: [run], ("127.0.0.1", 0))) as server:
        done = samples.orchestrate("metrics", str(run.path), "--prometheus", str(server.server_port))
    assert done.returncode == 2
    assert "cannot listen there: Address already in use" in done.stderr
    assert "0 takes a free one" in done.stderr


def test_prometheus_own_checker_finds_nothing_wrong(run):
    require("prometheus", None if shutil.which("promtool") else "promtool is not installed")
    latest = Latest("job-made")
    latest.add(Selected(run, Selection(KINDS)).new())
    said = text([(latest, State.RUNNING)])
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=said, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_real_prometheus_scrapes_it(run, tmp_path):
    require("prometheus", None if shutil.which("prometheus") else "prometheus is not installed")
    run.verdict_file.unlink()
    with (
        served(MetricsServer(lambda: [run], ("127.0.0.1", 0))) as server,
        prometheus(tmp_path, server.server_port) as ask,
    ):
        query = 'orchestrate_gpu_power_watts{gpu="2"}'
        [found] = wait_until(lambda: ask(query), lambda: query)
        wanted = {"run_id": "job-made", "host": "node-1", "gpu": "2"}
        assert wanted.items() <= found["metric"].items()
        assert found["value"][1] == "450"
        add(run, kind="step", rank=0, step=77)
        wait_until(lambda: ask("orchestrate_step == 77"), lambda: ask("orchestrate_step"))


@contextlib.contextmanager
def prometheus(folder, port):
    """Run a Prometheus that scrapes a port of this machine; yield a function that asks it."""
    config = {"scrape_configs": [{"job_name": "runs", "scrape_interval": "1s", "scrape_timeout": "1s",
              "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]}  # fmt: skip
    (folder / "prometheus.yml").write_text(json.dumps(config))
    own = free_port()
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{own}"], stdout=log, stderr=log
        )

    def ask(query):
        address = f"http://127.0.0.1:{own}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(address) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            return []

    try:
        yield ask
    finally:
        process.terminate()
        process.wait()
