"""Count the parameters of a Hugging Face model from its configuration: a program of its own.

    python count.py '{"config": "/models/llama", "lora": {"r": 8, "target_modules": "all-linear"}}'

It runs with the Python of the training, which has torch and transformers and need not have us: this file
imports nothing of ours. The model is made on torch's meta device, where a tensor has a shape and no memory,
so no weights are read or made. Stdout gets one JSON object, `{"shape": ...}` or `{"problem": ...}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_TARGETS = {
    # Model type: the linear layers that PEFT adapts when none are named, as in its
    # TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING (peft 0.21, utils/constants.py), which goes before
    # this one where PEFT is installed.
    **dict.fromkeys(("t5", "mt5"), ("q", "v")),
    **dict.fromkeys(
        (
            *("bart", "gemma", "gemma2", "gemma3_text", "gpt_neo", "gptj", "llama", "llama4", "mistral"),
            *("mixtral", "opt", "qwen2", "qwen3", "stablelm"),
        ),
        ("q_proj", "v_proj"),
    ),
    **dict.fromkeys(("bert", "electra", "layoutlm", "roberta", "xlm-roberta"), ("query", "value")),
    **dict.fromkeys(("bloom", "chatglm", "falcon", "gpt_neox"), ("query_key_value",)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    "deberta-v2": ("query_proj", "value_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_top_k", "num_selected_experts", "top_k")
_GATED = ("gate_proj.weight", "gate_up_proj.weight", "wi_0.weight")
_LORA = "model.lora.target_modules"
_OTHERWISE = "or write model.parameters, such as 7B, in place of model.config"


class CannotCountError(Exception):
    """The model cannot be counted: what is wrong, the value, and what to do about it."""

    def __init__(self, what: str, value: str, fix: str, where: str = "model.config") -> None:
        super().__init__(what)
        self.problem = {"what": what, "where": where, "value": value, "fix": fix}


def main(argv: list[str]) -> int:
    """Count the model of the request in `argv[1]`; print the answer; return the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer: it goes to stderr
    request = json.loads(argv[1])
    try:
        answer, code = {"shape": count(request["config"], request.get("lora"))}, 0
    except CannotCountError as error:
        answer, code = {"problem": error.problem}, 1
    with answers:
        json.dump(answer, answers)
    return code


def count(source: str, lora: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what estimates need to know of a model.

    Args:
        source: a name on the hub, a folder, or a file such as config.json.
        lora: `r` and `target_modules` of low-rank adapters; None trains the whole model.

    Returns:
        Numbers by name. `parameters` has tied weights once, `largest_layer` is the largest sum of one
        module's own parameters, both as DeepSpeed 0.19.8 counts them (`model_to_params` in
        runtime/zero/stage3.py). `tensors` are the sizes of all weights, in elements. With `lora`,
        `trainable` counts the adapters alone and `parameters` the model with them.

    Raises:
        CannotCountError: no such model, no transformers, or a model that only its own code can make.
    """
    config = read_config(source)
    model = make_model(config, source)
    tensors = [weight.numel() for weight in model.parameters()]
    adapters = [] if lora is None else adapter_tensors(model, lora["r"], lora.get("target_modules"))
    active = active_parameters(model)
    return {
        "parameters": sum(tensors) + sum(adapters),
        "trainable": sum(adapters) if adapters else sum(tensors),
        "largest_layer": max(
            sum(weight.numel() for weight in module.parameters(recurse=False)) for module in model.modules()
        ),
        "tensors": tensors + adapters,
        "active_parameters": None if active is None else active + sum(adapters),
        "gated": any(name.endswith(_GATED) for name, _ in model.named_parameters()),
        **described(config),
    }


def read_config(source: str) -> Any:
    """Return the configuration of a model; one that is on this disk already is not asked for again.

    Raises:
        CannotCountError: transformers is missing, or cannot read it.
    """
    try:
        from transformers import AutoConfig  # noqa: PLC0415 - a missing one is an answer, no traceback
    except ImportError as error:
        fix = f"install torch and transformers for {sys.executable}, {_OTHERWISE}"
        what = f"the model's configuration cannot be read: {error}"
        raise CannotCountError(what, source, fix) from None
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - classes of errors are many, and differ between versions
        if os.path.exists(source) or not isinstance(error, OSError):  # noqa: PTH110 - it may be no path
            raise _unreadable(error, source) from None
        if not _hub_answers():
            raise _unreadable(OSError("couldn't connect"), source) from None
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - as above
        raise _unreadable(error, source) from None


def _hub_answers() -> bool:
    """Return whether the hub can be connected to, which transformers itself tries for half a minute."""
    import socket  # noqa: PLC0415 - only for what is not on this disk
    import urllib.parse  # noqa: PLC0415 - as above
    import urllib.request  # noqa: PLC0415 - as above

    from huggingface_hub import constants  # noqa: PLC0415 - as above

    hub = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        if not urllib.request.getproxies():  # a proxy knows hosts that we do not
            socket.create_connection((hub.hostname or "", hub.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _unreadable(error: Exception, source: str) -> CannotCountError:
    """Say in our words what AutoConfig (transformers 5.23) says in many."""
    words = " ".join(str(error).split())
    first, nothing = words.split(". ")[0].rstrip("."), "no such folder or file here"
    folder = os.path.isdir(source) and not os.path.isfile(f"{source}/config.json")  # noqa: PTH112, PTH113 - a word
    unknown = "does not recognize" in words or "Unrecognized model" in words
    offline = "couldn't connect" in words or "offline" in words.lower()
    later = f"transformers {_version()} does not know this kind of model: {first}"
    unseen = f"{nothing}, and no such model on the hub (or none that you may see)"
    known = (
        ("trust_remote_code" in words, "this model is made by code of its own, which is not run here", ""),
        (folder, "there is no config.json in this folder", "give the folder of a model, "),
        (unknown, later, "install a later transformers, "),
        ("not a valid JSON" in words, "the model's configuration is not JSON", "correct it, "),
        (
            offline,
            f"{nothing}, and the hub cannot be reached",
            "give the model's folder or its config.json, ",
        ),
        ("not a valid model identifier" in words, unseen, "correct the name, log in with `hf auth login`, "),
        (True, f"the model's configuration cannot be read: {first}", "give another, "),
    )
    what, fix = next((what, fix) for is_it, what, fix in known if is_it)
    return CannotCountError(what, source, fix + _OTHERWISE if fix else _OTHERWISE.removeprefix("or "))


def _version() -> str:
    import transformers  # noqa: PLC0415 - as above

    return str(transformers.__version__)


def make_model(config: Any, source: str) -> Any:
    """Return the model on the meta device: of the class its configuration names, else a language model.

    Raises:
        CannotCountError: transformers has no class for it, or the configuration contradicts itself.
    """
    import torch  # noqa: PLC0415 - as above
    import transformers  # noqa: PLC0415 - as above

    architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    named: Any = getattr(transformers, architecture, None) if architecture else None
    kinds = [transformers.AutoModelForCausalLM, transformers.AutoModel]
    if getattr(config, "is_encoder_decoder", False):
        kinds.insert(0, transformers.AutoModelForSeq2SeqLM)
    makers: list[Any] = [kind.from_config for kind in kinds]
    if hasattr(named, "_from_config"):
        makers.insert(0, named._from_config)  # noqa: SLF001 - what from_config calls
    errors: list[str] = []
    for make in makers:
        try:
            with torch.device("meta"):
                return make(config)
        except Exception as error:  # noqa: BLE001 - as above
            errors.append(" ".join(str(error).split()).split(". ")[0][:300])
    what = f"transformers {_version()} cannot make this model: {errors[0]}"
    raise CannotCountError(what, source, f"correct its config.json, {_OTHERWISE}")


def described(config: Any) -> dict[str, Any]:
    """Return what the configuration itself says; the text part's of a model that also sees or hears."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers = _first(text, "num_hidden_layers", "n_layer", "num_layers", "encoder_layers")
    if layers is not None and getattr(config, "is_encoder_decoder", False):
        layers += _first(text, "num_decoder_layers", "decoder_layers") or layers
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return {
        "hidden_size": _first(text, "hidden_size", "n_embd", "d_model"),
        "layers": layers,
        "heads": _first(text, "num_attention_heads", "n_head", "num_heads", "encoder_attention_heads"),
        "vocabulary": _first(text, "vocab_size"),
        "intermediate_size": _first(text, "intermediate_size"),
        "max_positions": _first(text, "max_position_embeddings", "n_positions", "max_seq_len"),
        "pretrained_in": precision(dtype),
        "model_type": config.model_type,
        "transformers": _version(),
    }


def _first(config: Any, *names: str) -> int | None:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def precision(dtype: Any) -> str | None:
    """Return fp32, fp16 or bf16 for what a configuration calls its dtype; None for another one."""
    name = str(dtype).removeprefix("torch.")
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(name)


def active_parameters(model: Any) -> int | None:
    """Return the parameters that one token meets in a mixture of experts; None for other models.

    An expert's weights are those under a module called `experts`; what is shared lies beside it.
    """
    config = model.config.get_text_config()
    experts, chosen = _first(config, *_EXPERTS), _first(config, *_CHOSEN)
    sizes: dict[str, int] = {name: weight.numel() for name, weight in model.named_parameters()}
    routed = sum(size for name, size in sizes.items() if "experts" in name.split("."))
    if experts is None or chosen is None or chosen > experts or not routed:
        return None
    return sum(sizes.values()) - routed + routed * chosen // experts


def adapter_tensors(model: Any, r: int, targets: str | list[str] | None) -> list[int]:
    """Return the sizes of low-rank adapters: r x in and out x r for each layer that gets one.

    Args:
        model: the model, on any device.
        r: rank of the adapters.
        targets: last parts of names as in PEFT's `target_modules`; `all-linear` is every linear layer but
            the output embedding; None is PEFT's choice for this kind of model.

    Raises:
        CannotCountError: nothing in the model is called so, or PEFT makes no choice for its kind.
    """
    wanted = targets or default_targets(model.config.model_type)
    chosen = [module for name, module in model.named_modules() if _is_target(model, name, module, wanted)]
    if not chosen:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _linear(module)})
        what, fix = "the model has no linear layer of that name", f"choose among {', '.join(names)}"
        raise CannotCountError(what, str(wanted), fix, _LORA)
    return [r * size for module in chosen for size in module.weight.shape]


def _is_target(model: Any, name: str, module: Any, wanted: str | list[str]) -> bool:
    if wanted == "all-linear":
        return _linear(module) and module is not model.get_output_embeddings()
    named = any(name == target or name.endswith(f".{target}") for target in wanted)
    return named and (_linear(module) or type(module).__name__ == "Embedding")


def _linear(module: Any) -> bool:
    return not {"Conv1D", "Linear"}.isdisjoint(kind.__name__ for kind in type(module).__mro__)


def default_targets(model_type: str) -> list[str]:
    """Return the layers that PEFT adapts in this kind of model when none are named.

    Raises:
        CannotCountError: it makes no choice.
    """
    try:
        import peft.utils.constants as peft  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - as above
    except ImportError:
        known: Any = _TARGETS
    else:
        known = peft.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets = known.get(model_type)
    if targets is None or isinstance(targets, str):  # a pattern, for a model with several parts
        what = f"nobody knows which layers to adapt in a model of type {model_type}"
        raise CannotCountError(what, "nothing", "write all-linear, or the names of layers", _LORA)
    return list(targets)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
