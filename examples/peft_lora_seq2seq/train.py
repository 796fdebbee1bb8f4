"""Fine-tune a language model with LoRA, its frozen weights cut up by ZeRO-3 and held in host memory.

The scenario of PEFT's DeepSpeed guide: Accelerate prepares, DeepSpeed cuts up and offloads, PEFT trains two
small matrices beside each chosen layer. It reports memory as the guide does, then accuracy and predictions.
The script knows nothing of hosts or ZeRO settings: those are in `job.yaml`. By hand:

    accelerate launch --config_file ds_zero3_cpu.yaml train.py --output out
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hub
import torch
from accelerate.utils import set_seed
from meter import Meter, gpu_memory
from models import Collator, load_config, load_model, load_tokenizer
from peft import LoraConfig, TaskType, get_peft_model
from ranks import join, leave, peaks
from rows import Row, split_rows
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

if TYPE_CHECKING:
    from accelerate import Accelerator

HERE = Path(__file__).resolve().parent
MICRO_BATCH = "train_micro_batch_size_per_gpu"
SHOWN = 10  # predictions beside their labels


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for adapters and predictions, seen by all hosts")
    add(
        "--model",
        default="models/tiny",
        help="name on the hub, or a folder; config.json alone: random weights",
    )
    add("--data", help="CSV or JSON lines, or a data set on the hub; default: lines of Python's own sources")
    add("--text_column", default="text", help="of --data")
    add("--label_column", default="label", help="of --data")
    add("--train_rows", type=int, default=512, help="rows to train on, at most")
    add("--eval_rows", type=int, default=128, help="rows to evaluate with, at most")
    add("--source_length", type=int, default=64, help="tokens of a prompt")
    add("--target_length", type=int, default=8, help="tokens of a label")
    add("--answer_length", type=int, default=8, help="tokens of a prediction, at most")
    add("--epochs", type=int, default=3, help="times over the training rows")
    add("--batch_size", type=int, default=8, help="rows of a rank, where DeepSpeed's configuration says auto")
    add("--lr", type=float, default=1e-3, help="at its highest")
    add("--seed", type=int, default=42, help="of weights, dropout and the order of the rows")
    add("--r", type=int, default=8, help="rank of the adapters")
    add("--alpha", type=int, default=32, help="adapters count alpha/r times")
    add("--dropout", type=float, default=0.1, help="before the adapters")
    add("--target_modules", nargs="+", help="layers that get one, or all-linear; default: PEFT's choice")
    add("--recompute", action="store_true", help="recompute activations in backward")
    add("--push_to_hub", metavar="NAME", help="upload the adapters there; `hf auth login` first")
    return parser.parse_args()


@dataclass
class Training:
    """What the phases share; `model` and what follows it are what `Accelerator.prepare` returned."""

    args: argparse.Namespace
    accelerator: Accelerator
    collator: Collator
    evaluation: list[Row]
    model: Any
    optimizer: Any
    scheduler: Any
    train_batches: DataLoader[Any]
    eval_batches: DataLoader[Any]

    @property
    def is_zero_3(self) -> bool:
        """Return whether the weights are cut up."""
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return plugin is not None and plugin.zero_stage == 3


def build_model(args: argparse.Namespace, accelerator: Accelerator, config: Any) -> Any:
    """Return the frozen model with adapters, the only weights that train."""
    bf16 = accelerator.mixed_precision == "bf16"
    model = load_model(args.model, config, torch.bfloat16 if bf16 else torch.float32)
    model.config.use_cache = not args.recompute
    if args.recompute:
        # The reentrant way finds nothing to do in backward where a layer's input needs no gradient: here that
        # input comes from frozen embeddings.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    targets = args.target_modules
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if config.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=args.r,
        lora_alpha=args.alpha,
        lora_dropout=args.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    # PEFT would make the adapters fp32; ZeRO keeps an fp32 copy of all that trains, wherever it is offloaded.
    return get_peft_model(model, lora, autocast_adapter_dtype=False)


def batches(
    accelerator: Accelerator, args: argparse.Namespace, collator: Collator, rows: tuple[list[Row], list[Row]]
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return loaders for training and evaluation; the job's micro-batch goes before --batch_size."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    said = plugin.deepspeed_config.get(MICRO_BATCH, "auto") if plugin else "auto"
    size = args.batch_size if said == "auto" else int(said)
    data: tuple[Any, Any] = rows  # a list does for a data set, though the types of torch do not know it
    order = torch.Generator().manual_seed(args.seed)
    train: DataLoader[Any] = DataLoader(
        data[0], size, shuffle=True, generator=order, collate_fn=collator.training, drop_last=True
    )
    if len(train) < accelerator.num_processes:
        need = size * accelerator.num_processes
        raise SystemExit(f"{len(rows[0])} rows to train on are fewer than one batch of all ranks, {need}")
    return train, DataLoader(data[1], size, collate_fn=collator.asking)


def prepare(args: argparse.Namespace, accelerator: Accelerator) -> Training:
    """Make data, model, optimizer and schedule, and have Accelerate put them together with DeepSpeed."""
    config = load_config(args.model)
    with accelerator.main_process_first():  # one rank downloads and makes what the others find
        rows = split_rows(
            args.data, (args.text_column, args.label_column), (args.train_rows, args.eval_rows), args.seed
        )
        tokenizer = load_tokenizer(args.model, config, rows[0], args.output / "tokenizer")
    collator = Collator(tokenizer, config.is_encoder_decoder, args.source_length, args.target_length)
    model = build_model(args, accelerator, config)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=args.lr)
    train, evaluation = batches(accelerator, args, collator, rows)
    steps = args.epochs * len(train)  # Accelerate's scheduler counts the batches of all ranks
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 20, steps)
    return Training(
        args,
        accelerator,
        collator,
        rows[1],
        *accelerator.prepare(model, optimizer, schedule, train, evaluation),
    )


def describe(run: Training, seconds: float) -> None:
    """Print what trains, and on what."""
    # numel() of a weight that is cut up counts this rank's shard alone
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in run.model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
    held = sum(p.ds_tensor.ds_numel if hasattr(p, "ds_tensor") else p.numel() for p in run.model.parameters())
    kind = "encoder-decoder" if run.collator.encoder else "decoder"
    run.accelerator.print(
        f"{run.accelerator.num_processes} ranks on {run.accelerator.device.type}, {kind} of {total:,} "
        f"parameters, {held:,} on each, {trained:,} train ({100 * trained / total:.2f} %), "
        f"built in {seconds:.1f}s",
        flush=True,
    )


def train_epoch(run: Training) -> float:
    """Go once over the training rows; return the mean loss over all ranks, in nats per token."""
    run.model.train()
    total = torch.zeros((), device=run.accelerator.device)
    for number, batch in enumerate(run.train_batches, 1):
        started = time.perf_counter()
        with run.accelerator.accumulate(run.model):
            loss = run.model(**batch).loss
            run.accelerator.backward(loss)
            run.optimizer.step()
            run.scheduler.step()
            run.optimizer.zero_grad()
        total += loss.detach().float()
        seconds = time.perf_counter() - started
        run.accelerator.print(
            f"batch {number}/{len(run.train_batches)} loss {loss.item():.3f} step_time {seconds:.2f}s",
            flush=True,
        )
    return float(run.accelerator.reduce(total, "mean")) / len(run.train_batches)


@torch.no_grad()
def predict(run: Training) -> list[str]:
    """Return the answer to each row of the evaluation, in their order, on every rank.

    With ZeRO-3 all ranks must call the model equally often, as each call gathers weights: `synced_gpus` has
    those that are done go on until the last one is. The gathered answers come without the rows that made
    the last batch full (`gather_for_metrics`).
    """
    run.model.eval()
    model = run.accelerator.unwrap_model(run.model)
    answers: list[str] = []
    for batch in run.eval_batches:
        tokens = model.generate(
            **batch,
            max_new_tokens=run.args.answer_length,
            synced_gpus=run.is_zero_3,
            use_cache=True,
            do_sample=False,
        )
        tokens = run.accelerator.pad_across_processes(
            tokens, dim=1, pad_index=run.collator.tokenizer.pad_token_id
        )
        answers += run.collator.answers(run.accelerator.gather_for_metrics(tokens).cpu())
    return answers


def report(run: Training, meter: Meter) -> None:
    """Print rank 0's memory over a phase, then the GPUs' peaks of all ranks in one line."""
    for line in meter.lines():
        run.accelerator.print(line)
    peaks(run.accelerator, meter.phase, meter.gpu.peak if meter.gpu else 0)


def evaluate(run: Training, epoch: int) -> None:
    """Answer the rows that were held out; print the accuracy, keep every answer in the output folder."""
    with Meter("eval") as meter:
        answers = predict(run)
    report(run, meter)
    labels = [row.label for row in run.evaluation]
    right = sum(answer == label for answer, label in zip(answers, labels, strict=True))
    run.accelerator.print(f"epoch={epoch}: accuracy={100 * right / len(labels)}")
    run.accelerator.print(f"eval_preds[:{SHOWN}]={answers[:SHOWN]}")
    run.accelerator.print(f"labels[:{SHOWN}]={labels[:SHOWN]}", flush=True)
    if run.accelerator.is_main_process:
        lines = (
            json.dumps({**row._asdict(), "answer": answer})
            for row, answer in zip(run.evaluation, answers, strict=True)
        )
        (run.args.output / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def adapters(run: Training) -> dict[str, torch.Tensor]:
    """Return the adapters by name, whole, on the main process; the others only help to gather them.

    The frozen weights stay cut up: they are in the model that everybody has.
    """
    model = run.accelerator.unwrap_model(run.model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with gathered(list(trained.values()), enabled=run.is_zero_3):
        if not run.accelerator.is_main_process:
            return {}
        return {name: p.detach().cpu().clone() for name, p in trained.items()}


def gathered(parameters: list[torch.nn.Parameter], *, enabled: bool) -> Any:
    """Return a context in which these weights are whole on every rank."""
    import deepspeed  # noqa: PLC0415 - without a DeepSpeed section the script runs without DeepSpeed too

    return deepspeed.zero.GatheredParameters(parameters, enabled=enabled)


def save(run: Training) -> None:
    """Write the adapters, some hundred KB to some MB, as `PeftModel.from_pretrained` reads them."""
    state = adapters(run)
    if run.accelerator.is_main_process:
        model = run.accelerator.unwrap_model(run.model)
        model.save_pretrained(run.args.output / "adapters", state_dict=state)
        print(f"saved {run.args.output / 'adapters'}", flush=True)
        if run.args.push_to_hub:
            print(f"pushed {hub.upload(run.args.output / 'adapters', run.args.push_to_hub)}", flush=True)
    run.accelerator.wait_for_everyone()  # nobody leaves, and ends the run, while the main process writes


@record  # also writes an exception to TORCHELASTIC_ERROR_FILE, where the verdict of a run quotes it from
def main() -> None:
    """Join the other ranks, build, train, evaluate, save, leave."""
    args = parse_args()
    args.model = str(HERE / args.model) if (HERE / args.model).is_dir() else args.model
    started = time.perf_counter()
    accelerator = join()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.push_to_hub and accelerator.is_main_process:
        args.push_to_hub = hub.open_repository(args.push_to_hub)
    set_seed(args.seed)
    run = prepare(args, accelerator)
    describe(run, time.perf_counter() - started)
    peaks(accelerator, "building", gpu_memory()[1])
    for epoch in range(args.epochs):
        with Meter("train") as meter:
            loss = train_epoch(run)
        report(run, meter)
        accelerator.print(f"epoch={epoch}: train_ppl={math.exp(loss):.4f} train_epoch_loss={loss:.4f}")
        evaluate(run, epoch)
    save(run)
    leave(accelerator)


if __name__ == "__main__":
    main()
