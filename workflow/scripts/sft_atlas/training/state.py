"""The resumable state of a run: TRL's checkpoint with weights, optimiser, schedule, random numbers and log.

A state lies in `state/checkpoint-STEP/` beside the run's manifest and is believed only with its record, which is
written when every file has reached the disk, and only if the record says that it was made from just this run, base and
data. Whatever else is found is moved aside. The state before is deleted when the next one is complete.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from sft_atlas.files import recorded, write_json

LOG = logging.getLogger(__name__)

FOLDER = "state"
PREFIX = "checkpoint-"


def state_folder(output: Path) -> Path:
    """Where a run's resumable state lies, by its manifest."""
    return output.with_name(FOLDER)


def newest_state(folder: Path, made_from: dict[str, Any], before_step: int) -> Path | None:
    """The latest complete state of just this run that lies before a step, or None; others are moved aside.

    `before_step`: the last step of the first epoch that has still to be kept; a state from then on comes too late.
    """
    found: list[tuple[int, Path]] = []
    for state in sorted(folder.glob(f"{PREFIX}*")):
        if not state.is_dir():
            continue
        if recorded(record_of(state), made_from) is None:
            _move_aside(state)
        else:
            found.append((int(state.name.removeprefix(PREFIX)), state))
    return max(((step, state) for step, state in found if step < before_step), default=(0, None))[1]


def complete(state: Path, made_from: dict[str, Any]) -> None:
    """Make a state that was just written the one to go on from: onto the disk, then its record; others are deleted."""
    files = sorted(file for file in state.rglob("*") if file.is_file())
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    # sizes and not hashes: a state of a large model has 100 GB, and it is used once
    described = [{"name": f"{state.name}/{file.relative_to(state)}", "size": file.stat().st_size} for file in files]
    write_json(record_of(state), {"made_from": made_from, "files": described})
    for other in state.parent.glob(f"{PREFIX}*"):
        if other.is_dir() and other != state:
            discard(other)


def discard(state: Path) -> None:
    """Delete a state, its record first, so that a part of it is never believed."""
    record_of(state).unlink(missing_ok=True)
    shutil.rmtree(state, ignore_errors=True)


def give_up(state: Path, error: Exception) -> None:
    """Say that a full disk has no place for a state, and delete the part of it that is there."""
    discard(state)
    LOG.warning(f"{state}: no space to save the state ({error}); the one before is kept")


def record_of(state: Path) -> Path:
    """The record that says that a state is complete."""
    return state.with_name(f"{state.name}.json")


def _move_aside(state: Path) -> None:
    number = 1 + len(list(state.parent.glob("aside-*")))
    place = state.with_name(f"aside-{number}-{state.name}")
    record_of(state).unlink(missing_ok=True)
    state.rename(place)
    LOG.info(f"{state}: not a complete state of this run; moved to {place.name} and not used")
