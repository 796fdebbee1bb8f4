"""Where weights come from: DeepSpeed's shards, the module that stage 0 saves, or files of whole weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LIBRARIES = 450 << 20  # bytes that a process with torch and DeepSpeed takes before it reads anything
_PREFIXES = ("module.", "_orig_mod.")  # of a wrapped (DDP) and of a compiled module
_RANK0 = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")


class UnfitError(Exception):
    """The checkpoint holds no weights that can be put together here."""


@dataclass(frozen=True)
class Source:
    """Weights that were found and not read yet.

    Attributes:
        parameters: how many numbers they are.
        size: bytes that they take when written.
        memory: bytes of memory that reading them takes, about.
        read: reads them: tensors, or what becomes one by `contiguous()`, by name.
        tied: names that are another name's tensor; filled by `tensors`.
    """

    parameters: int
    size: int
    memory: int
    read: Callable[[], dict[str, Any]]
    tied: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """Read and return the tensors by the names that the model itself gives them; a tied one once."""
        found = _unwrapped(self.read())
        first: dict[Any, str] = {}
        for name, tensor in found.items():
            of = first.setdefault(_identity(tensor), name)
            if of != name:
                self.tied[name] = of
        return {name: tensor for name, tensor in found.items() if name not in self.tied}


def open_source(request: Mapping[str, Any]) -> Source:
    """Find the weights of a request (see `main`).

    Raises:
        UnfitError: they cannot be put together.
        ImportError: this Python lacks torch, DeepSpeed or safetensors.
    """
    width = {"fp32": 4, "bf16": 2, "fp16": 2}.get(str(request["dtype"]))
    if request["kind"] == "shards":
        return _of_shards(Path(request["folder"]), request["tag"], width or 4)
    if request["kind"] == "module":
        return _of_module(Path(request["folder"], request["tag"]), width)
    return _of_files(map(Path, request["files"]), width)


def _of_shards(folder: Path, tag: str, width: int) -> Source:
    """Have DeepSpeed put together the fp32 weights that its optimizer keeps.

    DeepSpeed 0.19.8 maps the shards into memory. At stage 3 it gathers a tensor when it is asked for one,
    frozen parameters at once; below, it joins all partitions first.
    """
    from deepspeed.utils import zero_to_fp32  # noqa: PLC0415 - a lack of it is told as an answer

    path = folder / tag
    state = _load(_first(path))
    trained = {name: shape for group in state.get("param_shapes") or [] for name, shape in group.items()}
    if not trained:
        raise UnfitError("it says nothing of the shapes of its parameters, so DeepSpeed cannot join them")
    frozen = dict(state.get("frozen_param_shapes") or {})
    buffers = {name: state["module"][name] for name in state.get("buffer_names") or []}
    told = {**trained, **frozen, **buffers, **(state.get("shared_params") or {})}
    left = _left_out(told, state["module"])
    numbers = sum(map(_count, trained.values()))
    still = sum(map(_count, frozen.values())) + sum(tensor.numel() for tensor in left.values())
    largest = max(map(_count, trained.values()))
    states = [file.stat().st_size for file in path.glob("*model_states.pt")]
    if (path / _RANK0[1]).is_file():
        memory = 8 * largest + 8 * still + max(states)
    else:
        memory = 4 * numbers + sum(states) + 4 * largest

    def read() -> dict[str, Any]:
        join: Any = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint
        try:
            found = dict(join(str(folder), tag, lazy_mode=True))
        except TypeError:  # before DeepSpeed 0.16
            found = dict(join(str(folder), tag))
        return {**found, **left}

    size = width * (numbers + still) + sum(map(_bytes, buffers.values()))
    return Source(numbers + still, size, memory + _LIBRARIES, read)


def _left_out(told: dict[str, Any], module: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of the module that DeepSpeed joins nothing to.

    At stage 1 it (0.19.8) keeps no note of frozen parameters and joins none of them; here they are whole.

    Raises:
        UnfitError: one is not whole: its shards lie elsewhere.
    """
    known = {_identity(module[name]) for name in told if name in module}
    left = {
        name: tensor
        for name, tensor in module.items()
        if name not in told and hasattr(tensor, "dtype") and _identity(tensor) not in known
    }
    gone = sorted(name for name, tensor in left.items() if not tensor.numel())
    if gone:
        raise UnfitError(f"DeepSpeed joins {len(gone)} of its parameters to nothing, such as {gone[0]}")
    return left


def _of_module(path: Path, width: int | None) -> Source:
    return _of_tensors(_load(_first(path))["module"], width)


def _of_files(files: Iterable[Path], width: int | None) -> Source:
    found: dict[str, Any] = {}
    for file in files:
        found.update(_opened(file))
    return _of_tensors(found, width)


def _of_tensors(found: dict[str, Any], width: int | None) -> Source:
    tensors = {name: tensor for name, tensor in found.items() if hasattr(tensor, "dtype")}
    once = {_identity(tensor): tensor for tensor in tensors.values()}.values()
    if not tensors:
        raise UnfitError("there is no tensor in it")
    numbers = sum(tensor.numel() for tensor in once)
    size = sum(_bytes(tensor, width) for tensor in once)
    memory = 8 * max(tensor.numel() for tensor in once) + _LIBRARIES
    return Source(numbers, size, memory, lambda: tensors)


def _opened(file: Path) -> dict[str, Any]:
    """Return the tensors of a file, mapped into memory."""
    if file.suffix != ".safetensors":
        import torch  # noqa: PLC0415 - as above

        return dict(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
    from safetensors import safe_open  # noqa: PLC0415 - as above

    opened: Any = safe_open(file, framework="pt")
    return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping


def _first(path: Path) -> Path:
    for name in _RANK0:
        if (path / name).is_file():
            return path / name
    raise UnfitError(f"there are no model states of rank 0 in {path}")


def _load(file: Path) -> dict[str, Any]:
    """Load what DeepSpeed saved, its tensors mapped into memory; this executes its pickle."""
    import torch  # noqa: PLC0415 - as above

    state: dict[str, Any] = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    return state


def _unwrapped(found: dict[str, Any]) -> dict[str, Any]:
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            return _unwrapped({name[len(prefix) :]: tensor for name, tensor in found.items()})
    return found


def _identity(tensor: Any) -> Any:
    """Return what is the same for two names of one tensor: `data_ptr` is 0 for an empty one."""
    if hasattr(tensor, "data_ptr") and tensor.numel():
        return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
    return id(tensor)


def _count(shape: Any) -> int:
    count = 1
    for length in shape:
        count *= int(length)
    return count


def _bytes(tensor: Any, width: int | None = None) -> int:
    own = tensor.element_size()
    return int(tensor.numel()) * (width if width and tensor.dtype.is_floating_point else own)
