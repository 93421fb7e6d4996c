"""TRL's trainer with our steps, our guards, and states that a full disk cannot spoil."""

import errno
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTConfig, SFTTrainer

from sft_atlas.errors import CellError
from sft_atlas.files import read_json
from sft_atlas.runtime.settings import current
from sft_atlas.study.model import Lora, Recipe
from sft_atlas.training.sampler import StepSampler
from sft_atlas.training.state import PREFIX, give_up

# A model that knows nothing has a loss of ln V; one that is surely wrong about nearly every token has left for good.
EXPLODED = 2.0
EXPLODED_STEPS = 3
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


class DivergedError(CellError):
    """The loss or the gradient is NaN or infinite, or the loss has exploded: the same run would end so again."""


class Trainer(SFTTrainer):
    """SFTTrainer that takes each step's rows from a `StepSampler` and stops before a bad step spoils the weights."""

    def __init__(self, sampler: StepSampler, row_ids: list[str], **arguments: Any) -> None:
        self.sampler, self.row_ids = sampler, row_ids
        self.vocabulary, self.exploded = arguments["model"].config.vocab_size, 0
        super().__init__(**arguments)

    @property
    def weights(self) -> Any:
        """The model that is trained, once it is made."""
        assert self.model is not None
        return self.model

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchRebalanceSampler:
        return self.sampler

    def continue_from(self, state: Path) -> None:
        """Take up counts that TRL keeps outside of its checkpoints, so that the log goes on as if never cut."""
        log = [entry for entry in read_json(state / "trainer_state.json")["log_history"] if "num_tokens" in entry]
        self._total_train_tokens = log[-1]["num_tokens"] if log else 0

    def step_rows(self) -> list[str]:
        """The ids of the rows in the step that is being trained."""
        steps = self.sampler.steps(self.state.global_step // self.steps_per_epoch)
        return [self.row_ids[row] for row in steps[self.state.global_step % self.steps_per_epoch]]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in a pass over the sample."""
        return self.sampler.num_global_batches

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called between backward and step: here a bad gradient has not reached the weights yet."""
        norm = super()._get_grad_norm(model, grad_norm)
        mean = self._tr_loss.detach().clone()
        loss = float(self.accelerator.reduce(mean, "mean") if self.accelerator.num_processes > 1 else mean)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(loss) or not math.isfinite(value):
            self._diverged(f"the loss is {loss:g} and the norm of its gradient {value:g}")
        self.exploded = self.exploded + 1 if loss > EXPLODED * math.log(self.vocabulary) else 0
        if self.exploded >= EXPLODED_STEPS:
            self._diverged(
                f"the loss is {loss:.3g} and has been above {EXPLODED:g} times that of a model that knows nothing "
                f"({math.log(self.vocabulary):.3g}) for {EXPLODED_STEPS} steps"
            )
        return norm

    def _diverged(self, what: str) -> None:
        raise DivergedError(
            f"step {self.state.global_step + 1} of {self.state.max_steps}: {what}; its rows are "
            f"{', '.join(self.step_rows())}. The weights before this step and the last saved state are kept. Look at "
            "these rows, or lower the recipe's learning_rate or add warmup_steps; another recipe is another run"
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights of a resumable state; TRL would add a tokenizer, pickled arguments and a question to the hub."""
        model = self.accelerator.unwrap_model(self.model)
        # embeddings are never trained with an adapter; peft would ask the hub whether they have changed
        options = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
        model.save_pretrained(str(output_dir), state_dict=state_dict, **options)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """A resumable state is not published, so it needs no card."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the resumable state; on a full disk go on with the state before, and try again later."""
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            # several processes save together: one that goes on alone would meet the others in the wrong place
            if not disk_is_full(error) or self.accelerator.num_processes > 1:
                raise
            give_up(Path(str(self.args.output_dir)) / f"{PREFIX}{self.state.global_step}", error)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, from Python, safetensors or torch, means that nothing more can be written."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    return any(
        sign in text for sign in ("No space left", "os error 28", "Disk quota", "os error 122", "File too large")
    ) or ("PytorchStreamWriter failed" in text or "unexpected pos" in text)


def trainer_arguments(
    recipe: Recipe, seed: int, last: int, device: torch.device, folder: Path, splits: int, processes: int = 1
) -> SFTConfig:
    """TRL's arguments for a recipe, every default that matters written out.

    `last` is the last kept epoch; the schedule spans the recipe's epochs, which a constant schedule does not have.
    A step's `batch_size` rows are dealt to `splits` micro-batches of each process.
    """
    schedule, warmup = recipe.schedule, recipe.warmup_steps
    # instead of FSDP2, if config.yaml says so (study/deepspeed.py has checked the file)
    deepspeed = (current().deepspeed or None) if processes > 1 else None
    return SFTConfig(
        output_dir=str(folder),
        save_strategy="no",
        per_device_train_batch_size=math.ceil(recipe.batch_size / (splits * processes)),
        gradient_accumulation_steps=splits,
        num_train_epochs=last if schedule == "constant" else recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" and warmup else schedule,
        warmup_steps=warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        optim=OPTIMIZERS[recipe.optimizer],
        max_length=recipe.max_length,
        packing=recipe.batching == "packed",
        dataset_kwargs={"skip_prepare_dataset": True},
        seed=seed,
        data_seed=seed,
        bf16=recipe.precision == "bf16",
        use_cpu=device.type == "cpu",
        activation_checkpointing=device.type != "cpu" and processes == 1,
        fsdp=processes > 1 and not deepspeed,  # type: ignore[arg-type]
        fsdp_config=fully_sharded(device) if processes > 1 and not deepspeed else None,
        deepspeed=deepspeed,
        dataloader_pin_memory=device.type != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **recipe.passed_on(),
    )


def fully_sharded(device: torch.device) -> dict[str, Any]:
    """FSDP2: every process holds a share of weights, gradients and optimiser, and gathers a layer when it is needed."""
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",
        "activation_checkpointing": device.type != "cpu",
    }


def shard_on_cpu(arguments: SFTConfig) -> None:
    """Let accelerate shard over CPU processes too: it offers FSDP to accelerators only, though gloo does it as well."""
    if arguments.distributed_state and arguments.distributed_state.distributed_type == DistributedType.MULTI_CPU:
        arguments.distributed_state._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def check_optimizer(name: str, device: torch.device) -> None:
    """8-bit optimisers are kernels of a GPU, from a package of their own.

    Raises:
        ValueError: the package or the GPU is missing.
    """
    if name == "adamw":
        return
    if device.type == "cpu":
        raise ValueError(f"recipe: optimizer: {name!r} runs on a GPU only, and this job has none; use 'adamw'")
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"recipe: optimizer: {name!r} needs the package bitsandbytes: pip install 'sft-atlas[8bit]'")


def adapter_config(lora: Lora | None) -> LoraConfig | None:
    """peft's configuration of an adapter, or None for full fine-tuning."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
