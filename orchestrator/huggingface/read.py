"""Start the program that counts a model, and take its answer. Nothing heavy is imported here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from orchestrator.estimate.shape import ModelShape
    from orchestrator.job import ModelSpec

_PROGRAM = Path(__file__).with_name("count.py")
_SECONDS = 180.0  # asking a hub that does not answer takes transformers half a minute
_NUMBERS = "write model.parameters, such as 7B, in place of model.config"


@dataclass
class Counting:
    """A count under way.

    Attributes:
        process: the program; its answer comes on stdout.
        spec: section `model` of the job file: what it says goes before what the configuration says.
        seconds: how long the count took, once `result` has returned.
    """

    process: subprocess.Popen[str]
    spec: ModelSpec
    seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def result(self, timeout: float = _SECONDS) -> ModelShape:
        """Wait for the count and return the model's shape.

        Args:
            timeout: seconds to wait at most; then the program is ended.

        Raises:
            JobFileError: the model cannot be counted, and why.
        """
        try:
            answer, words = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.close()
            what = f"reading the model's configuration took more than {timeout:.0f} s"
            raise JobFileError(
                Problem(what, "model.config", self.spec.config, f"give a folder, or {_NUMBERS}")
            ) from None
        self.seconds = time.monotonic() - self._started
        return _shape(_counted(answer, words, self.spec), self.spec)

    def close(self) -> None:
        """End the program, if it still runs."""
        self.process.kill()
        self.process.communicate()


def read_shape(spec: ModelSpec, python: str | None, base_dir: Path) -> ModelShape:
    """Return the shape of the model that `model.config` names.

    Args:
        spec: section `model` of the job file, with a `config`.
        python: the Python that has torch and transformers (`train.python`); ours when not given.
        base_dir: folder where a relative path starts.

    Raises:
        JobFileError: the model cannot be counted, and why.
    """
    return start_count(spec, python, base_dir).result()


def start_count(spec: ModelSpec, python: str | None, base_dir: Path) -> Counting:
    """Start to count the model; see `read_shape`."""
    program = shutil.which(python or sys.executable)
    if program is None:
        what, fix = "there is no such Python here to read model.config with", f"correct it, or {_NUMBERS}"
        raise JobFileError(Problem(what, "train.python", python, fix))
    lora = None if spec.lora is None else spec.lora.model_dump()
    request = json.dumps({"config": config_source(str(spec.config), base_dir), "lora": lora})
    process = subprocess.Popen(
        [program, str(_PROGRAM), request],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    return Counting(process, spec)


def config_source(word: str, base_dir: Path) -> str:
    """Return what AutoConfig is asked for: the path of what is on this disk, else a name on the hub."""
    try:
        path = base_dir / Path(word).expanduser()
    except RuntimeError:  # no such user: the hub will not know it either
        return word
    return str(path) if path.exists() or word.startswith(("/", "./", "../", "~")) else word


def _counted(answer: str, words: str, spec: ModelSpec) -> dict[str, Any]:
    try:
        told = json.loads(answer)
    except ValueError:
        last = next((line for line in reversed(words.splitlines()) if line.strip()), "no word of why")
        what = f"the program that reads the model's configuration failed: {last.strip()[:300]}"
        raise JobFileError(Problem(what, "model.config", spec.config, _NUMBERS)) from None
    if "problem" in told:
        raise JobFileError(Problem(**told["problem"]))
    counted: dict[str, Any] = told["shape"]
    return counted


def _shape(counted: dict[str, Any], spec: ModelSpec) -> ModelShape:
    """Return a counted model as estimates take it; numbers in the job file go before counted ones."""
    from orchestrator.estimate.shape import ModelShape  # noqa: PLC0415 - after the wait

    said = {
        "trainable": spec.trainable_parameters,
        "largest_layer": spec.largest_layer,
        "hidden_size": spec.hidden_size,
        "layers": spec.layers,
        "heads": spec.attention_heads,
        "vocabulary": spec.vocabulary,
        "sequence_length": spec.sequence_length,
        "pretrained_in": spec.pretrained_in,
    }
    source = f"{spec.config} ({counted['model_type']}, transformers {counted['transformers']})"
    known = {key: value for key, value in said.items() if value is not None}
    return ModelShape.from_json({**counted, **known, "source": source})
