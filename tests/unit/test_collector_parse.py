"""What lines of many programs tell of a step, and what lines tell nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collector.parse import LONGEST, NEEDLES, has_needle, parse

ENGINE = "[2026-01-01 10:00:00,123] [INFO] [logging.py:107:log_dist] [Rank 0] "
TIMER = "[2026-01-01 10:00:00,123] [INFO] [timer.py:264:stop] epoch=0/micro_step=10/global_step=10, "
TITAN = "\x1b[32m[titan] 2026-01-01 10:00:00,123 - root - INFO - \x1b[31mstep:  1  \x1b[32mloss: 12.25"
TOLD = [
    ("step 1/60 loss 6.106 tokens/s 4745 step_time 0.86s TFLOP/s 0.005", 1,
     {"loss": 6.106, "tokens_per_second": 4745, "step_time": 0.86, "tflops": 0.005}),
    ("batch 1/20 loss 11.000 step_time 3.29s", 1, {"loss": 11, "step_time": 3.29}),
    ("step 5/40 loss 2.301 lr 3.00e-04", 5, {"loss": 2.301, "learning_rate": 3e-4}),
    ("eval step 40 accuracy 0.68 f1 0.81", 40, {"accuracy": 0.68, "f1": 0.81}),
    ("eval step 40 loss 2.2", 40, {"eval_loss": 2.2}),
    ("{'loss': 2.345, 'grad_norm': 1.2, 'learning_rate': 5e-05, 'epoch': 0.1}", None,
     {"loss": 2.345, "grad_norm": 1.2, "learning_rate": 5e-5, "epoch": 0.1}),
    ("{'loss': '2.345', 'grad_norm': '1.2', 'learning_rate': '5e-05', 'epoch': '0.1'}", None,
     {"loss": 2.345, "grad_norm": 1.2, "learning_rate": 5e-5, "epoch": 0.1}),
    ("{'eval_loss': 2.1, 'eval_runtime': 1.2, 'epoch': 1.0}", None,
     {"eval_loss": 2.1, "eval_runtime": 1.2, "epoch": 1}),
    (" 41%|####1     | 412/1000 [05:10<07:15,  1.25it/s]", 412, {"step_time": 0.8}),
    (" 41%|####1     | 412/1000 [05:10<07:15,  2.5s/it, loss=2.31]", 412, {"step_time": 2.5, "loss": 2.31}),
    ("Epoch 0:  42%|####2 | 412/1000 [00:10<00:15, 40.0it/s, v_num=0, train_loss=2.30]", 412,
     {"step_time": 0.025, "loss": 2.3, "v_num": 0}),
    (f"{ENGINE}step=10, skipped=0, lr=[0.001], mom=[[0.9, 0.999]]", 10,
     {"skipped": 0, "learning_rate": 0.001, "mom": 0.9}),
    (f"{TIMER}RunningAvgSamplesPerSec=12.5, CurrSamplesPerSec=13.25, MemAllocated=0.5GB", 10,
     {"runningavgsamplespersec": 12.5, "samples_per_second": 13.25, "memallocated": 0.5}),
    ("time (ms) | fwd: 12.50 | bwd_allreduce: 10.10 | step: 2.30", None,
     {"fwd_ms": 12.5, "bwd_allreduce_ms": 10.1, "step_ms": 2.3}),
    ("[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768", None,
     {"loss_scale": 32768}),
    ((" iteration      100/  500000 | consumed samples:   102400 | elapsed time per iteration (ms): 5123.4 |"
     " learning rate: 1.000E-04 | lm loss: 2.10E+00 | loss scale: 1.0 | grad norm: 0.512 |"), 100,
     {"consumed_samples": 102400, "step_time": 5.1234, "learning_rate": 1e-4, "loss": 2.1, "loss_scale": 1,
      "grad_norm": 0.512}),
    (f"{TITAN}  grad_norm: 1.3  memory:  3.30GiB(4.10%)  tps: 5,123  mfu: 4.10%", 1,
     {"loss": 12.25, "grad_norm": 1.3, "memory": 3.3, "tokens_per_second": 5123, "mfu": 0.041}),
    ("iter 100: loss 2.3011, time 123.40ms, mfu 12.30%", 100,
     {"loss": 2.3011, "step_time": 0.1234, "mfu": 0.123}),
    ("step 250: train loss 2.1000, val loss 2.2000", 250, {"loss": 2.1, "eval_loss": 2.2}),
    ("Epoch [1/10], Step [100/600], Loss: 0.1234", 100, {"loss": 0.1234}),
    ('{"step": 10, "loss": 2.3, "train": {"lr": 0.1}}', 10, {"loss": 2.3, "learning_rate": 0.1}),
    ("2026-01-01 10:00:00 | INFO | step 7 | loss 1.5 | lr 1e-3", 7, {"loss": 1.5, "learning_rate": 0.001}),
    ("step 1,234 loss 2.0", 1234, {"loss": 2}),
]  # fmt: skip
NOTHING = [
    "",
    '  File "train.py", line 412, in training_step',
    '  File "/opt/step 12/train.py", line 7, in loss',
    "RuntimeError: NaN at step 412: gave up after 3 tries",
    "[Rank 0] time (ms) | fwd_microstep: 0.07 | bwd_microstep: 2.06 | step_microstep: 1.27",
    "saved checkpoints/x at step 40",
    "resumed global_step40 at step 40",
    "torch 2.13.0 step 2.13.0",
    "held-out loss 2.123, 1.234 bits per byte",
    "[rank3]: step 12 waiting on port 29500",
    "Step 3 of 5: connecting to 10.0.0.1 port 8080",
    "warmup_steps: 100, max_steps: 1000, save_steps=500",
    "  Total optimization steps = 1,000",
    "Loading checkpoint shards: 100%|##########| 4/4 [00:02<00:00,  1.9it/s]",
    "Map: 100%|##########| 1000/1000 [00:00<00:00, 12345.67 examples/s]",
    "{'train_runtime': 12.3, 'train_steps_per_second': 0.1, 'train_loss': 2.1, 'epoch': 3.0}",
    '{"event": "step", "time": 12}',
    '{"step": "none"',
    "step 5 loss 2.0" + "x" * LONGEST,
    "-" * 1000 + "x step 5 loss",  # what a careless pattern would think about for ever
    "- " * 500 + "\0 step 5 a-" + "-a" * 300,
    "a" * 1900 + " step",
    "step " + "1" * 1900,
    '{"step": Infinity, "loss": 1.0}',
    '{"step": 1' + "0" * 500 + ', "loss": 1.0}',
    '{"loss": ' + "[" * 1900,
]


@pytest.mark.parametrize(("line", "step", "values"), TOLD)
def test_lines_that_tell_of_a_step(line, step, values):
    told = parse(line.encode())
    assert told is not None
    assert (told.step, told.values) == (step, pytest.approx(values))


@pytest.mark.parametrize("line", NOTHING)
def test_lines_that_tell_nothing(line):
    assert parse(line.encode()) is None


@pytest.mark.parametrize(("word", "value"), [("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf)])
def test_a_loss_that_is_no_number(word, value):
    told = parse(f"step 5 loss {word}".encode())
    assert told is not None
    assert told.values["loss"] == pytest.approx(value, nan_ok=True)


PIECES = [
    "step",
    "iter",
    "loss",
    "lr",
    " ",
    ": ",
    "=",
    "/",
    "[",
    "]",
    "<",
    "it/s",
    "%|",
    "|",
    ",",
    "'",
    '{"',
    "}",
]
NUMBERS = [
    "1",
    "12.5",
    "1e5",
    "1.2.3",
    "-",
    ".",
    "nan",
    "1,000",
    "00:01",
    "?",
    "1e999",
    "\x1b[31m",
    "time (ms)",
    "\xff",
]


@given(st.lists(st.sampled_from(PIECES + NUMBERS), max_size=40))
def test_pieces_of_such_lines_in_any_order_are_read_without_an_error(pieces):
    told = parse("".join(pieces).encode())
    assert told is None or all(isinstance(value, float) for value in told.values.values())


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(data):
    for needle in (b"", *NEEDLES):
        parse(needle + data)
        parse(data + needle + b" 12 loss 3")


def test_the_needles_are_in_every_line_that_tells():
    assert all(has_needle(line.encode()) for line, _, _ in TOLD)


def test_a_step_in_a_wide_table_does_not_cost_minutes():
    assert parse(b"step" + b" " * 1900 + b"|") is None
    assert parse(b"step 1 loss " + b" " * 1900 + b"|") is None
