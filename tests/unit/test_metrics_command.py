"""`orchestrate metrics`: what is selected, how it is shown, and that other programs read it."""

from __future__ import annotations

import csv
import io
import json

import click as click_module
import pytest

from orchestrator.cli.login import _words
from orchestrator.cli.main import cli
from orchestrator.cli.metrics import metrics_command
from orchestrator.monitor.metrics.columns import shown, worth_showing
from orchestrator.monitor.metrics.select import KINDS, Selected, Selection
from orchestrator.states import State
from tests import samples
from tests.made_run import made_run

OUT = ("time", "attempt", "kind", "host", "rank", "step", "loss", "learning_rate", "grad_norm")


@pytest.fixture
def run(here):
    return made_run(here / "runs", hosts=2, slots=2, steps=30, slow=1)


def metrics(*words: str) -> str:
    done = samples.click("metrics", "job-made", *words)
    assert done.exception is None, done.output
    return done.stdout


def add(run, **record) -> None:
    with run.metrics_file.open("a") as file:
        file.write(json.dumps({"time": 1790000100.0, "attempt": 1, "host": "node-0", **record}) + "\n")


def test_the_table_has_the_last_steps_and_no_column_that_is_always_the_same(run):
    head, *rows = metrics().splitlines()
    assert head.split() == ["time", "step", "loss", "lr", "grad_norm", "tokens/s", "s/step"]
    assert [row.split()[2] for row in rows] == [str(step) for step in range(11, 31)]
    assert len({len(row) for row in (head, *rows)}) == 1


def test_the_table_of_measurements_has_the_newest_of_each(run):
    rows = metrics("--kind", "gpu").splitlines()[1:]
    assert [row.split()[2:4] for row in rows] == [
        ["node-0", "0"],
        ["node-0", "1"],
        ["node-1", "2"],
        ["node-1", "3"],
    ]
    assert ["thermal" in row for row in rows] == [False, False, True, True]
    assert "80 GiB" in rows[0]


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        (["--kind", "rank", "--rank", "0,2-3"], Selection(("rank",), ranks=frozenset({0, 2, 3}))),
        (["--kind", "all", "--host", "node-1"], Selection(KINDS, hosts=frozenset({"node-1"}))),
        (["--attempt", "2"], Selection(attempt=2)),
    ],
)
def test_json_lines_are_the_records_that_were_asked_for(run, words, selection):
    add(run, kind="step", rank=0, step=31, attempt=2)
    run.attempt(2).logs.mkdir(parents=True)
    lines = [json.loads(line) for line in metrics(*words, "--json").splitlines()]
    everything = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert (
        lines
        == [record for record in everything if selection.wants(record)]
        == list(Selected(run, selection).new())
    )
    assert lines


def test_csv_has_every_column_and_pandas_reads_both(run):
    import pandas as pd

    add(run, kind="step", rank=0, step=31, loss="NaN", my_metric=3)
    table = pd.read_csv(io.StringIO(metrics("--csv")))
    assert list(table.columns)[: len(OUT)] == list(OUT)
    assert list(table.columns)[-1] == "my_metric"
    assert table["my_metric"].notna().sum() == 1
    assert table["loss"].isna().sum() == 1
    frame = pd.read_json(run.metrics_file, lines=True)
    assert list(frame[frame.kind == "step"].step) == list(table.step)
    assert [row["step"] for row in csv.DictReader(io.StringIO(metrics("--csv", "--tail", "2")))] == [
        "30",
        "31",
    ]


def test_following_ends_with_the_run_and_misses_nothing(run):
    assert len(metrics("-f", "--json").splitlines()) == 30
    assert metrics("-f") == metrics()


def test_a_run_that_told_nothing_says_so(here):
    samples.run_dir(here / "runs", "job-made", State.RUNNING)
    done = samples.click("metrics", "job-made")
    assert (done.return_value, done.stdout) == (0, "")
    assert "has no metrics yet" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["--csv", "--json"], ["--prometheus", "0", "--tensorboard", "x"], ["--bind", "::"], ["--rank", "3-1"]],
)
def test_what_does_not_fit_together_is_an_error(run, words):
    assert samples.click("metrics", "job-made", *words).exception is not None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "node-9"], "no such host in this run (got node-9)\n  fix: it has: node-0, node-1"),
        (["--rank", "4", "--json"], "--rank: no such rank in this run (got 4)\n  fix: ranks are 0 to 3"),
        (["--attempt", "3", "--csv"], "--attempt: no such attempt (got 3)\n  fix: there are: 1"),
        (["--tensorboard", "/dev/null/x"], "--tensorboard: cannot write there: Not a directory"),
        (["--prometheus", "0", "--bind", "192.0.2.1"], "fix: give --bind an address of this machine"),
    ],
)
def test_what_the_run_or_the_machine_does_not_have_is_an_error(run, words, told):
    error = samples.click("metrics", "job-made", *words).exception
    assert error.exit_code == 2
    assert told in str(error)


@pytest.mark.parametrize("words", [["--csv"], ["--json"]])
def test_programs_read_nothing_where_there_is_nothing(here, words):
    samples.run_dir(here / "runs", "job-made", State.RUNNING)
    assert samples.click("metrics", "job-made", *words).stdout == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loss", 2.13391, "2.1339"),
        ("learning_rate", 1e-05, "1e-05"),
        ("memory", 61 << 30, "61 GiB"),
        ("step", 412000, "412000"),
        ("loss", "NaN", "NaN"),
        ("throttled", "thermal", "thermal"),
        ("loss", None, ""),
    ],
)
def test_a_value_on_the_screen(name, value, words):
    assert shown(name, value) == words


def test_a_zero_reaches_the_login_host_too():
    group = click_module.Context(cli, info_name="orchestrate")
    words = ["last", "--prometheus", "0", "--tail", "0", "--kind", "gpu", "--kind", "host", "-f"]
    context = metrics_command.make_context("metrics", words, parent=group)
    assert sorted(_words(context, "/far/run")) == sorted(
        ["metrics", "/far/run", "--prometheus=0", "--tail=0", "--kind=gpu", "--kind=host", "--follow"]
    )


def test_files_are_not_written_on_a_login_host(run):
    from orchestrator.login import records

    far = records.RemoteRun(run_id="far-aaaa", login={"host": "login"}, program="p", job_file="j", digest="d")
    far.run_dir = "/r"
    far.save()
    done = samples.click("metrics", "far-aaaa", "--tensorboard", "tb")
    assert "orchestrate fetch far-aaaa" in str(done.exception)
    assert done.exception.exit_code == 2


# -- TensorBoard ------------------------------------------------------------------------------------


def test_tensorboard_reads_back_what_was_exported(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    add(run, kind="step", rank=1, step=30, loss=9.5)
    add(run, kind="step", rank=0, step=20, loss=1.5, attempt=2, words="none", broken="NaN")
    said = metrics("--tensorboard", "tb", "--kind", "step", "--kind", "gpu")
    folder = run.path.parent.parent / "tb/job-made"
    assert str(folder.relative_to(run.path.parent.parent)) in said
    first, second = (
        EventAccumulator(str(folder / f"attempt-{number}"), size_guidance={"tensors": 0}) for number in (1, 2)
    )
    first.Reload()
    second.Reload()
    steps = list(Selected(run, Selection(ranks=frozenset({0}), attempt=1)).new())

    def scalars(reader, tag):
        return [
            (one.step, one.wall_time, pytest.approx(one.tensor_proto.float_val[0]))
            for one in reader.Tensors(tag)
        ]

    assert scalars(first, "loss") == [(record["step"], record["time"], record["loss"]) for record in steps]
    assert [step for step, *_ in scalars(first, "rank1/loss")] == [30]
    assert len(scalars(first, "gpu/node-1/gpu2/power")) == 5
    assert [value for *_, value in scalars(second, "loss")] == [1.5]
    assert "words" not in second.Tags()["tensors"]


def test_a_row_alone_says_whose_it_is_and_rows_of_one_rank_do_not_repeat_it():
    row = {"kind": "rank", "attempt": 1, "host": "node-1", "rank": 3, "memory": 5}
    assert worth_showing(row, [row]) == ["host", "rank", "memory"]
    assert worth_showing(row, [row, row]) == ["memory"]
