"""One run from its specification: what is there already, what is left to train, and the manifest of it all."""

import gc
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sft_atlas.errors import CellError
from sft_atlas.files import content_hash, epoch_folder, read_json, recorded, write_json, write_record, write_table
from sft_atlas.models.released import was_released
from sft_atlas.runtime.settings import current
from sft_atlas.runtime.stopping import StoppedError, stop_request
from sft_atlas.stages.train.spec import Spec
from sft_atlas.training.batches import sequences
from sft_atlas.training.fit import Request, fit, keeps_state, state_made_from
from sft_atlas.training.lease import Lease, lease
from sft_atlas.training.memory import cannot_fit, is_out_of_memory
from sft_atlas.training.parallel import fit_in_processes
from sft_atlas.training.state import PREFIX, newest_state, state_folder

LOG = logging.getLogger(__name__)


def run(spec: Spec, root: Path) -> dict[str, Any]:
    """Train a run from its specification (see `train`)."""
    return train(spec, root)


def train(spec: Spec, root: Path, released: bool = False) -> dict[str, Any]:
    """Train a run and write its manifest: kept epochs with their files and hashes, steps, final loss, label audit.

    Kept epochs lie beside the manifest as `epoch-NN/model/`. Epochs that an earlier job made from the same base, tokens
    and settings are left as they are; if all are there, nothing is trained. A run that was cut off goes on from its
    last saved state, to the same bytes. Weights that were given back once they were measured are not made again, unless
    `released` asks for them. Returns facts for the job's record: speed, micro-batches, restarts.

    Raises:
        StoppedError: the job was asked to stop; the state is saved.
        CellError: the loss is NaN or has exploded, or the GPU's memory does not hold one row; says what would fit.
        ValueError: the host's memory does not.
    """
    identity, output = spec.identity, root / spec.output
    base, tokens = root / spec.inputs.base, root / spec.inputs.tokens
    made_from = {"run": identity.run, "base": content_hash(base), "tokens": content_hash(tokens)}
    records = {epoch: epoch_folder(output, epoch) / "checkpoint.json" for epoch in identity.epochs}
    log = output.with_name("log.parquet")
    log_record = log.with_suffix(".json")
    with lease(output.parent) as owned:
        _clean_up(output, records)
        wanted = [
            epoch
            for epoch, record in _missing(records, made_from).items()
            if released or not was_released(record, made_from)
        ]
        if not _has_log(log_record, made_from, max(records)):
            wanted = sorted({*wanted, max(records)})
        facts: dict[str, Any] = {}
        if wanted:
            request = Request(
                settings=identity.settings,
                base=base,
                tokens=tokens,
                records={epoch: records[epoch] for epoch in wanted},
                made_from=made_from,
                states=state_folder(output),
                progress=output.with_name(output.name.replace("train-", "progress-")),
                lease=owned.path,
            )
            history, facts = _train(request, owned)
            if max(wanted) == max(records) and not _has_log(log_record, made_from, max(records)):
                write_table(log, history)
                write_record(log_record, made_from | {"epochs": max(records)}, [log])
            if not keeps_state():
                shutil.rmtree(request.states, ignore_errors=True)
        counted = read_json(tokens)
        steps = pl.read_parquet(log).filter(pl.col("epoch") <= max(records) + 1e-6)
        manifest = {
            "made_from": made_from,
            "epochs": {str(epoch): read_json(record)["files"] for epoch, record in records.items()},
            "steps": steps.height,
            "trained_tokens": counted["trained_tokens"] * max(records),
            "final_loss": steps["loss"].tail(max(1, steps.height // max(records))).mean(),
            "label_audit": label_audit(tokens),
        }
        owned.check()
        write_json(output, manifest)
    return facts


def _has_log(record: Path, made_from: dict[str, Any], last: int) -> bool:
    """Whether the log is whole and goes at least to an epoch; under a constant schedule it may go further."""
    try:
        epochs = int(read_json(record)["made_from"]["epochs"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    return epochs >= last and recorded(record, made_from | {"epochs": epochs}) is not None


def label_audit(tokens: Path) -> dict[str, int]:
    """What carries loss in a pass over the tokens: rows, their tokens, trained ones, rows that train their last token.

    Rows that are cut at the recipe's length do not train EOS.
    """
    table = pl.read_parquet(tokens.with_name("tokens.parquet"))
    labels = pl.col("labels")
    counts = table.select(
        rows=pl.len(),
        cut_rows=pl.col("truncated").sum(),
        tokens=pl.col("input_ids").list.len().sum(),
        trained_tokens=labels.list.eval((pl.element() >= 0).cast(pl.Int64)).list.sum().sum(),
        rows_without_loss=labels.list.eval((pl.element() >= 0).cast(pl.Int64)).list.sum().eq(0).sum(),
        rows_with_trained_end=labels.list.last().ge(0).sum(),
    )
    return {name: int(value) for name, value in counts.row(0, named=True).items()}


def _train(request: Request, owned: Lease) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train in as many processes as there are GPUs for it; where memory runs out, with smaller micro-batches."""
    processes = current().processes
    recipe = request.settings.recipe
    rows = sequences(pl.read_parquet(request.tokens.with_name("tokens.parquet")), recipe).height
    # one row in each process
    most_splits = max(1, recipe.batch_size // processes)
    attempts: list[int] = []
    with stop_request() as stop:
        while True:
            splits = 2 * attempts[-1] if attempts else None
            first = min(request.records) * math.ceil(rows / recipe.batch_size)
            state = newest_state(request.states, state_made_from(request, processes), before_step=first)
            try:
                if processes > 1:
                    trained = fit_in_processes(request, splits, state, processes, stop)
                else:
                    trained = fit(request, owned, stop, splits, state)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = getattr(error, "splits", None)
                message = cannot_fit(request, processes)
                if not isinstance(error, torch.OutOfMemoryError) or failed is None:
                    # the host's memory: the next attempt of the job asks for more of it
                    raise ValueError(message) from None
                if failed >= most_splits:
                    raise CellError(message) from None
                attempts.append(failed)
                # epochs that were kept before memory ran out stay
                kept = {epoch: request.records[epoch] for epoch in (max(request.records),)}
                request = replace(request, records=kept | _missing(request.records, request.made_from))
                LOG.info(
                    f"out of memory with {failed} micro-batches a step; goes on with {2 * failed} of half the rows, "
                    "which changes last digits only"
                )
            # trainer, callbacks and model refer to each other: without this both models would be held at once
            gc.collect()
            torch.cuda.empty_cache()
    if stop.received and not trained.finished:
        saved = newest_state(request.states, state_made_from(request, processes), before_step=trained.step + 1)
        where = f"state saved at step {saved.name.removeprefix(PREFIX)}" if saved else "no state could be saved"
        raise StoppedError(f"asked to stop after step {trained.step}: {where}; the same job goes on from there")
    return trained.history, trained.facts | {"out_of_memory_with_splits": attempts}


def _missing(records: dict[int, Path], made_from: dict[str, Any]) -> dict[int, Path]:
    """The epochs that are not there yet, or not whole."""
    return {epoch: record for epoch, record in records.items() if recorded(record, made_from) is None}


def _clean_up(output: Path, records: dict[int, Path]) -> None:
    """Delete the unfinished files that a killed owner left under temporary names; only the owner of the lease may."""
    for folder in {record.parent for record in records.values()} | {output.parent}:
        for pattern in (".model.*.tmp", ".checkpoint.json.*.tmp", ".log.*.tmp", ".train-*.tmp", ".progress-*.tmp"):
            for left in folder.glob(pattern):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
