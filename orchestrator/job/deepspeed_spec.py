"""The section `deepspeed`: DeepSpeed's configuration in the job file's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.job.section import Section
from orchestrator.job.values import JobPath, Line, Script, Word  # noqa: TC001 - pydantic reads the annotations

Precision = Literal["fp32", "fp16", "bf16"]
OffloadDevice = Literal["none", "cpu", "nvme"]
Count = Annotated[int, Field(ge=1)]
_Float = Field(ge=0, allow_inf_nan=False)
Size = Annotated[int, Field(ge=0)] | Annotated[float, _Float]
"""A bucket or threshold in elements; a float (people write 5e8) is rounded."""
AutoSize = Size | Literal["auto"]
"""The same, where `auto` follows the model's hidden size."""


class Fp16Spec(Section):
    """Loss scaling of fp16."""

    loss_scale: Annotated[float, _Float] | None = Field(
        default=None, description="Fixed loss scale; 0 is dynamic."
    )
    initial_scale_power: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="The first dynamic loss scale is 2 to this power."
    )
    loss_scale_window: Count | None = Field(
        default=None, description="Steps without overflow before the scale is doubled."
    )
    hysteresis: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Overflows that are waited for before the scale is halved."
    )
    min_loss_scale: Count | None = Field(default=None, description="Smallest dynamic loss scale.")
    auto_cast: bool | None = Field(default=None, description="Cast the model's inputs to fp16.")


class OptimizerSpec(Section):
    """DeepSpeed's own optimizer; without this section the script brings its own."""

    type: Word = Field(description="Name of the optimizer, such as AdamW or Lion.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Its parameters as DeepSpeed spells them, such as lr and betas."
    )


class SchedulerSpec(Section):
    """DeepSpeed's own scheduler; without this section the script brings its own."""

    type: Word = Field(description="Name of the scheduler, such as WarmupDecayLR.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Its parameters as DeepSpeed spells them, such as warmup_num_steps."
    )


class ActivationCheckpointingSpec(Section):
    """How DeepSpeed's own checkpointing function keeps activations (`deepspeed.checkpointing`)."""

    partition_activations: bool | None = Field(
        default=None, description="Cut kept activations up over model-parallel ranks."
    )
    cpu_checkpointing: bool | None = Field(
        default=None, description="Keep the partitioned activations in host memory."
    )
    contiguous_memory_optimization: bool | None = Field(
        default=None, description="Copy kept activations into one buffer (needs number_checkpoints)."
    )
    number_checkpoints: Count | None = Field(default=None, description="Checkpoints of one forward pass.")
    synchronize_checkpoint_boundary: bool | None = Field(
        default=None, description="Synchronize the device at each checkpoint."
    )
    profile: bool | None = Field(default=None, description="Time forward and backward of each checkpoint.")


class CheckpointSpec(Section):
    """How DeepSpeed writes and reads checkpoints."""

    load_universal: bool | None = Field(
        default=None, description="Load universal checkpoints, which fit any number of ranks."
    )
    tag_validation: Literal["Ignore", "Warn", "Fail"] | None = Field(
        default=None, description="What to do when ranks save under different tags."
    )
    use_node_local_storage: bool | None = Field(
        default=None, description="Every host has a checkpoint folder of its own."
    )


class FlopsProfilerSpec(Section):
    """DeepSpeed's flops profiler."""

    enabled: bool | None = Field(default=None, description="Profile one step.")
    profile_step: Count | None = Field(default=None, description="The step that is profiled.")
    module_depth: int | None = Field(default=None, ge=-1, description="Depth of modules shown; -1 is all.")
    top_modules: Count | None = Field(default=None, description="Modules shown at each depth.")
    detailed: bool | None = Field(default=None, description="Print a profile of every module.")
    output_file: Script | None = Field(default=None, description="File to write to; else stdout.")


class CommsLoggerSpec(Section):
    """DeepSpeed's log of collectives."""

    enabled: bool | None = Field(default=None, description="Log collectives.")
    verbose: bool | None = Field(default=None, description="A line for every collective.")
    prof_all: bool | None = Field(default=None, description="Log all operations.")
    prof_ops: list[Line] | None = Field(default=None, description="Log only these, such as all_reduce.")
    debug: bool | None = Field(default=None, description="Name the caller of each operation.")


class TensorboardSpec(Section):
    """DeepSpeed's TensorBoard monitor."""

    enabled: bool | None = Field(default=None, description="Write TensorBoard events.")
    output_path: Script | None = Field(default=None, description="Folder for them.")
    job_name: Line | None = Field(default=None, description="Name of the folder inside.")


class CsvMonitorSpec(Section):
    """DeepSpeed's CSV monitor."""

    enabled: bool | None = Field(default=None, description="Write CSV files.")
    output_path: Script | None = Field(default=None, description="Folder for them.")
    job_name: Line | None = Field(default=None, description="Name of the folder inside.")


class WandbSpec(Section):
    """DeepSpeed's Weights & Biases monitor."""

    enabled: bool | None = Field(default=None, description="Report to Weights & Biases.")
    group: Line | None = Field(default=None, description="Group of the run.")
    team: Line | None = Field(default=None, description="Team of the run.")
    project: Line | None = Field(default=None, description="Project of the run.")


class DeepSpeedSpec(Section):
    """DeepSpeed's configuration: a JSON file, fields that fill its `auto` values, or fields alone."""

    config_file: JobPath | None = Field(default=None, description="DeepSpeed configuration, a JSON file.")
    auto: Literal["resolve", "script"] | None = Field(
        default=None,
        description="Who fills the values that are auto: resolve does it here, script leaves it to the "
        "training script (Accelerate's prepare, HF Trainer); default: script with launcher accelerate, else "
        "resolve.",
    )
    zero_stage: Literal[0, 1, 2, 3] | None = Field(default=None, description="ZeRO stage.")
    hpz: Count | Literal["node"] | None = Field(
        default=None,
        description="Ranks that share a second partition of the weights (ZeRO++ hpZ); node: those of a host.",
    )
    quantized_weights: bool | None = Field(default=None, description="Gather weights in 8 bits (ZeRO++ qwZ).")
    quantized_gradients: bool | None = Field(
        default=None, description="Reduce gradients in 4 bits (ZeRO++ qgZ)."
    )
    quantized_nontrainable_weights: bool | None = Field(
        default=None, description="Keep frozen weights in 8 bits (ZeRO++ with LoRA; fp16 only)."
    )
    micro_batch_per_gpu: Count | None = Field(
        default=None, description="Samples of one rank in one forward pass."
    )
    global_batch: Count | None = Field(
        default=None, description="Samples of all ranks in one optimizer step."
    )
    gradient_accumulation_steps: Count | None = Field(
        default=None, description="Forward passes in one optimizer step."
    )
    gradient_clipping: Annotated[float, _Float] | None = Field(
        default=None,
        description="Largest norm of the gradient: 0 is no limit, DeepSpeed's own default is 1.",
    )
    precision: Precision | None = Field(default=None, description="Arithmetic of forward and backward.")
    fp16: Fp16Spec | None = Field(default=None, description="Loss scaling (precision fp16).")
    offload_optimizer: OffloadDevice | None = Field(default=None, description="Where optimizer states live.")
    offload_param: OffloadDevice | None = Field(default=None, description="Where parameters live (stage 3).")
    offload_optimizer_nvme_path: Script | None = Field(
        default=None, description="Folder on each host for optimizer states."
    )
    offload_param_nvme_path: Script | None = Field(
        default=None, description="Folder on each host for parameters."
    )
    pin_memory: bool | None = Field(default=None, description="Lock offloaded memory in RAM: faster copies.")
    force_ds_cpu_optimizer: bool | None = Field(
        default=None,
        description="With an offloaded optimizer, insist on DeepSpeed's CPU Adam; false allows the "
        "script's own.",
    )
    zero3_init: bool | None = Field(
        default=None,
        description="Cut the model up while it is made (deepspeed.zero.Init); default: at stage 3. Launcher "
        "accelerate passes it on; with the others it says what the script does, for plan.",
    )
    zero3_save_16bit_model: bool | None = Field(
        default=None, description="Gather whole 16-bit weights when the model is saved (stage 3)."
    )
    moe_layer_cls_names: list[Word] | None = Field(
        default=None, description="Classes of mixture-of-experts layers, which ZeRO-3 gathers as a whole."
    )
    optimizer: OptimizerSpec | None = Field(
        default=None, description="DeepSpeed's optimizer; the script's own when not given."
    )
    scheduler: SchedulerSpec | None = Field(
        default=None, description="DeepSpeed's scheduler; the script's own when not given."
    )
    reduce_bucket_size: (
        Count | Annotated[float, Field(ge=1, allow_inf_nan=False)] | Literal["auto"] | None
    ) = Field(default=None, description="Elements reduced at once.")
    allgather_bucket_size: Size | None = Field(
        default=None, description="Elements gathered at once (stages 1 and 2)."
    )
    prefetch_bucket_size: AutoSize | None = Field(
        default=None, description="Elements of weights gathered ahead of their use (stage 3)."
    )
    param_persistence_threshold: AutoSize | None = Field(
        default=None, description="Weights with fewer elements stay whole on every rank (stage 3)."
    )
    max_live_parameters: Size | None = Field(
        default=None, description="Most elements of whole weights on a rank at once (stage 3)."
    )
    max_reuse_distance: Size | None = Field(
        default=None, description="Keep weights whole that are used again within so many elements (stage 3)."
    )
    sub_group_size: Size | None = Field(
        default=None, description="Elements that one optimizer step updates at once (stage 3)."
    )
    overlap_comm: bool | None = Field(default=None, description="Communicate while backward computes.")
    contiguous_gradients: bool | None = Field(default=None, description="Copy gradients into one buffer.")
    reduce_scatter: bool | None = Field(
        default=None, description="Reduce each gradient to its owner alone, not to all ranks."
    )
    activation_checkpointing: ActivationCheckpointingSpec | None = Field(
        default=None, description="Settings of deepspeed.checkpointing, for scripts that call it."
    )
    checkpoint: CheckpointSpec | None = Field(default=None, description="Writing and reading checkpoints.")
    flops_profiler: FlopsProfilerSpec | None = Field(default=None, description="DeepSpeed's flops profiler.")
    comms_logger: CommsLoggerSpec | None = Field(default=None, description="DeepSpeed's log of collectives.")
    tensorboard: TensorboardSpec | None = Field(default=None, description="Metrics for TensorBoard.")
    csv_monitor: CsvMonitorSpec | None = Field(default=None, description="Metrics as CSV files.")
    wandb: WandbSpec | None = Field(default=None, description="Metrics for Weights & Biases.")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Any DeepSpeed keys, merged last and as they are."
    )
