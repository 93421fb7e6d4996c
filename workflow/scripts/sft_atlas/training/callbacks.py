"""What happens between the steps of a run: epochs are kept, the state is saved, progress is told."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sft_atlas.files import read_json, whole, write_json, write_record
from sft_atlas.runtime.stopping import StopRequest
from sft_atlas.training.lease import Lease
from sft_atlas.training.state import PREFIX, complete, give_up
from sft_atlas.training.trainer import Trainer, disk_is_full
from sft_atlas.units import duration

LOG = logging.getLogger(__name__)

# Saving may take this share of a run's time, whatever the interval that is asked for.
SAVING_SHARE = 0.05
REPORT_SECONDS, PROGRESS_SECONDS = 30.0, 5.0


class EpochKeeper(TrainerCallback):
    """Saves the model at the end of each kept epoch, and ends training after the last."""

    def __init__(
        self,
        trainer: Trainer,
        records: dict[int, Path],
        made_from: dict[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        precision: str,
        lease: Lease,
    ) -> None:
        self.records, self.made_from, self.tokenizer, self.precision = records, made_from, tokenizer, precision
        self.trainer, self.lease = trainer, lease

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Write `epoch-NN/model/` and, when it is whole, its record."""
        epoch, unfinished = divmod(state.global_step, self.trainer.steps_per_epoch)
        if unfinished:
            # training was asked to stop; the Trainer calls this at the end of the part of an epoch, too
            return control
        if epoch in self.records:
            self.lease.check()
            weights = full_weights(self.trainer)
            if state.is_world_process_zero:
                record = self.records[epoch]
                folder = record.with_name("model")
                with whole(folder) as temporary:
                    save(self.trainer, weights, temporary, self.precision)
                    self.tokenizer.save_pretrained(temporary)
                trained = str(next(self.trainer.weights.parameters()).dtype).removeprefix("torch.")
                saved = "float32" if self.precision == "fp32" or weights_are_adapters(self.trainer) else "bfloat16"
                facts = {"epoch": epoch, "step": state.global_step, "trained_in": trained, "saved_in": saved}
                write_record(record, self.made_from, [folder], **facts)
        if epoch >= max(self.records):
            control.should_training_stop = True
        return control


class StateKeeper(TrainerCallback):
    """Saves the resumable state now and then, and at once when the job is asked to stop."""

    def __init__(
        self,
        trainer: Trainer,
        made_from: dict[str, Any],
        lease: Lease,
        stop: StopRequest,
        interval: float,
        last: int,
        keep: bool,
    ) -> None:
        self.trainer, self.made_from, self.lease, self.stop = trainer, made_from, lease, stop
        self.interval, self.last, self.keep = interval, last, keep
        self.saved = self.began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a save where it is due; at an epoch's last step the epoch is kept first."""
        if state.global_step % self.trainer.steps_per_epoch and self._due():
            control.should_save = True
            control.should_training_stop = self._stopping() or control.should_training_stop
            self._before_save()
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save after the epoch is kept; no state is needed after the last one, unless it is to be kept."""
        if state.global_step % self.trainer.steps_per_epoch:
            return control
        ended = control.should_training_stop
        if (self.keep and state.global_step == self.last * self.trainer.steps_per_epoch) or (not ended and self._due()):
            control.should_save = True
            control.should_training_stop = self._stopping() or ended
            self._before_save()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A state is one to go on from when all of it is on the disk."""
        folder = Path(str(args.output_dir)) / f"{PREFIX}{state.global_step}"
        if state.is_world_process_zero and folder.exists():
            self.lease.check()
            try:
                complete(folder, self.made_from)
            except OSError as error:
                # on a network file system a full disk may be told only here
                if not disk_is_full(error):
                    raise
                give_up(folder, error)
        now = time.monotonic()
        if self.interval:
            self.interval = max(self.interval, (now - self.began) / SAVING_SHARE)
        self.saved = now

    def _before_save(self) -> None:
        self.lease.check()
        self.began = time.monotonic()

    def _due(self) -> bool:
        waited = time.monotonic() - self.saved >= self.interval
        return self._in_any_process(self.stop.received or waited)

    def _stopping(self) -> bool:
        return self._in_any_process(self.stop.received)

    def _in_any_process(self, holds: bool) -> bool:
        """Whether it holds in any process of the run: clocks and signals differ, and all have to save together."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return holds
        votes = torch.tensor([float(holds)], device=accelerator.device)
        return bool(accelerator.reduce(votes, "sum").item())


class Reporter(TrainerCallback):
    """Tells how far a run is: a line in the job's log now and then, and a small file that `sft-atlas status` reads."""

    def __init__(self, trainer: Trainer, progress: Path, epochs: int) -> None:
        self.trainer, self.progress, self.epochs = trainer, progress, epochs
        self.first: tuple[float, int, int] | None = None
        self.told = self.written = 0.0
        self.tokens_per_second: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Step, epoch, loss, learning rate, tokens per second and time left."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        now, step, tokens = time.monotonic(), state.global_step, logs.get("num_tokens", 0)
        last = self.epochs * self.trainer.steps_per_epoch
        if self.first is None:
            # the first step sets up more than it trains, so speed is measured from its end
            self.first = (now, step, tokens)
        seconds, steps, trained = (value - start for value, start in zip((now, step, tokens), self.first, strict=True))
        speed = self.tokens_per_second = trained / seconds if seconds and steps else None
        left = (last - step) * seconds / steps if steps else None
        tenth = step % max(1, last // 10) == 0
        if tenth or step == last or now - self.told > REPORT_SECONDS:
            self.told = now
            LOG.info(
                f"step {step}/{last}, epoch {step / self.trainer.steps_per_epoch:.2f}/{self.epochs}, "
                f"loss {logs['loss']:.4f}, learning rate {logs['learning_rate']:.3g}"
                + (f", {speed:,.0f} tokens/s, {duration(left)} left" if speed and left is not None else "")
            )
        if now - self.written > PROGRESS_SECONDS:
            self.written = now
            facts = {"step": step, "max_steps": last, "loss": logs["loss"], "tokens_per_second": speed}
            write_json(self.progress, facts | {"seconds_left": left, "written": time.time()})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What is over has no progress."""
        if state.is_world_process_zero:
            self.progress.unlink(missing_ok=True)


def full_weights(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """All weights on every process where they are spread over several; None where the model itself has them."""
    if trainer.accelerator.num_processes == 1:
        return None
    return dict(trainer.accelerator.get_state_dict(trainer.model_wrapped))


def weights_are_adapters(trainer: Trainer) -> bool:
    """Whether only adapters are trained and saved."""
    return isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel)


def save(trainer: Trainer, weights: dict[str, torch.Tensor] | None, folder: Path, precision: str) -> None:
    """Save weights as safetensors: an adapter in fp32, a full model in fp32 or, of a bf16 recipe, in bf16."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        # embeddings are never trained with an adapter; peft would ask the hub whether they have changed
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=weights)
        # peft writes its sets in the order of their hashes, which is another in every process
        config = read_json(folder / "adapter_config.json")
        ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
        write_json(folder / "adapter_config.json", ordered)
        folder.joinpath("README.md").unlink(missing_ok=True)
    elif precision == "fp32":
        model.save_pretrained(folder, state_dict=weights)
    else:
        state = {name: tensor.to(torch.bfloat16) for name, tensor in (weights or model.state_dict()).items()}
        model.save_pretrained(folder, state_dict=state)
        write_json(folder / "config.json", read_json(folder / "config.json") | {"dtype": "bfloat16"})
