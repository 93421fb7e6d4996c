"""The configuration of DeepSpeed, an optional extra: hardware only, so that no identity knows of it.

What a recipe decides (batch, learning rate, optimiser, schedule, precision, clipping) must be left to the trainer: such
a key is absent or "auto". What is left is how weights, gradients and optimiser state are spread. Keys and meanings:
DeepSpeed's documentation, "DeepSpeed Configuration JSON"; "auto" is allowed where transformers fills it in
(integrations/deepspeed.py, `trainer_config_process`), since DeepSpeed itself does not know the word.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sft_atlas.errors import StudyError
from sft_atlas.study.load import validate
from sft_atlas.study.model import Strict

Auto = Literal["auto"]
# JSON has one kind of number: 5e8 is a number of elements
Elements = Annotated[float, Field(ge=1, multiple_of=1)]
AUTO: Any = Field(default="auto", description="Decided by the recipe; `auto` or left out.")


class Offload(Strict):
    """Where optimiser state or weights lie when not in use."""

    device: Literal["none", "cpu", "nvme"] = Field(default="none", description="none keeps them on the GPU.")
    pin_memory: bool = Field(default=False, description="Page-locked memory: faster, and taken from the machine.")
    nvme_path: str | None = Field(default=None, description="Folder on a fast local disk, for device nvme.")

    @model_validator(mode="after")
    def _has_a_place(self) -> "Offload":
        if (self.device == "nvme") != (self.nvme_path is not None):
            raise ValueError("`nvme_path` goes with `device: nvme`, and is needed there")
        return self


class Zero(Strict):
    """ZeRO: what is spread over the GPUs."""

    stage: Annotated[int, Field(ge=0, le=3)] = Field(
        description="0: nothing; 1: optimiser state; 2: and gradients; 3: and weights."
    )
    overlap_comm: bool | None = Field(default=None, description="Communicate while gradients are computed.")
    contiguous_gradients: bool | None = Field(default=None, description="Copy gradients to one buffer.")
    reduce_scatter: bool | None = Field(default=None, description="Reduce-scatter in place of all-reduce.")
    reduce_bucket_size: Elements | Auto | None = Field(default=None, description="Elements reduced at a time.")
    allgather_partitions: bool | None = Field(default=None, description="All-gather in place of broadcasts.")
    allgather_bucket_size: Elements | None = Field(default=None, description="Elements gathered at a time.")
    round_robin_gradients: bool | None = Field(default=None, description="Spread copies to the CPU over GPUs.")
    offload_optimizer: Offload = Field(default=Offload(), description="Optimiser state; stage 1 or more.")
    offload_param: Offload = Field(default=Offload(), description="Weights; stage 3.")
    sub_group_size: Elements | None = Field(default=None, description="Stage 3: elements updated at a time.")
    stage3_prefetch_bucket_size: Elements | Auto | None = Field(
        default=None, description="Stage 3: elements fetched ahead."
    )
    stage3_param_persistence_threshold: Elements | Auto | None = Field(
        default=None, description="Stage 3: smaller tensors are not spread."
    )
    stage3_max_live_parameters: Elements | None = Field(default=None, description="Stage 3: elements held at most.")
    stage3_max_reuse_distance: Elements | None = Field(default=None, description="Stage 3: elements held for reuse.")
    stage3_gather_16bit_weights_on_model_save: Literal[True] | None = Field(
        default=None, description="Checkpoints hold whole weights; without it they could not be read."
    )

    @model_validator(mode="after")
    def _fits_the_stage(self) -> "Zero":
        if self.stage == 3 and not self.stage3_gather_16bit_weights_on_model_save:
            raise ValueError("stage 3 needs `stage3_gather_16bit_weights_on_model_save: true`, or no weights are kept")
        if self.offload_param.device != "none" and self.stage != 3:
            raise ValueError(f"`offload_param` needs `stage: 3`, found `stage: {self.stage}`")
        if self.offload_optimizer.device != "none" and self.stage == 0:
            raise ValueError("`offload_optimizer` needs `stage: 1` or more, found `stage: 0`")
        if self.stage != 3 and (given := sorted(name for name in self.model_fields_set if name.startswith("stage3"))):
            raise ValueError(f"`{given[0]}` needs `stage: 3`, found `stage: {self.stage}`")
        return self


class Precision(Strict):
    """A number format, which the recipe switches on or off."""

    enabled: Auto = AUTO


class Optimizer(Strict):
    """The recipe's AdamW, in DeepSpeed's own implementation."""

    type: Literal["AdamW"] = Field(description="The one that recipes know.")
    params: dict[Literal["lr", "betas", "eps", "weight_decay"], Auto] = Field(
        default={}, description="All `auto`: the recipe's."
    )


class DeepSpeed(Strict):
    """A DeepSpeed configuration that contradicts no recipe."""

    zero_optimization: Zero = Field(description="What is spread over the GPUs.")
    bf16: Precision = Field(default=Precision(), description="Precision is the recipe's.")
    fp16: Precision = Field(default=Precision(), description="Precision is the recipe's.")
    train_batch_size: Auto = AUTO
    train_micro_batch_size_per_gpu: Auto = AUTO
    gradient_accumulation_steps: Auto = AUTO
    gradient_clipping: Auto = AUTO
    optimizer: Optimizer | None = Field(default=None, description="None: the trainer's.")
    zero_allow_untested_optimizer: bool = Field(default=False, description="Needed by 8-bit optimisers.")
    zero_force_ds_cpu_optimizer: bool = Field(default=True, description="Refuse slow optimisers when offloading.")
    steps_per_print: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Lines in the log.")
    wall_clock_breakdown: bool = Field(default=False, description="Times in the log.")
    dump_state: bool = Field(default=False, description="The settings in the log.")


# what a recipe decides, by which of its fields, and what may stand here
BATCH = "batch_size, and micro_batch_size in config.yaml"
NUMBER, FORMAT = '"auto"', '{"enabled": "auto"}'
DECIDED = {
    "train_batch_size": ("batch_size", NUMBER),
    "train_micro_batch_size_per_gpu": (BATCH, NUMBER),
    "gradient_accumulation_steps": (BATCH, NUMBER),
    "gradient_clipping": ("max_gradient_norm", NUMBER),
    "bf16": ("precision", FORMAT),
    "fp16": ("precision", FORMAT),
    "optimizer": ("learning_rate and weight_decay", '{"type": "AdamW", "params": {"lr": "auto", …}}'),
    "scheduler": ("schedule and warmup_steps", None),
}


def read_deepspeed(path: Path) -> DeepSpeed:
    """Read and check a DeepSpeed configuration, before any job starts.

    Raises:
        StudyError: one line for each problem: file, key, what was found, what was expected, and what to do.
    """
    where = f"config.yaml: deepspeed: {path}"
    try:
        declared = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, object_pairs_hook=_distinct)
    except OSError as error:
        raise StudyError(f"{where}: cannot be read ({error.strerror}); give the path of a JSON file") from None
    except ValueError as error:
        raise StudyError(f"{where}: not valid JSON ({error}); mend the file") from None
    if not isinstance(declared, dict):
        raise StudyError(f"{where}: expected a JSON object of settings, found {type(declared).__name__}")
    clashes = [
        f"{where}: {key}: recipes decide this ({field}); found {json.dumps(declared[key])[:80]}; "
        + (f"drop the key, or write {allowed}" if allowed else "drop the key")
        for key, (field, allowed) in DECIDED.items()
        if key in declared and not _is_open(key, declared[key])
    ]
    if clashes:
        raise StudyError("\n".join(clashes))
    return validate(DeepSpeed, declared, Path(where))


def _is_open(key: str, value: Any) -> bool:
    """Whether a setting that recipes decide is left to them."""
    if key == "scheduler":
        return False
    if key == "optimizer":
        params = value.get("params", {}) if isinstance(value, dict) else None
        return (
            isinstance(params, dict)
            and value.get("type") == "AdamW"
            and all(value == "auto" for value in params.values())
        )
    return value in ("auto", {"enabled": "auto"})


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; none may stand twice, where JSON would silently keep the last."""
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"key {twice!r} stands twice")
    return dict(pairs)
