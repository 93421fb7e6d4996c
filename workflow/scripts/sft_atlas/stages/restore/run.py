"""Puts back weights that were released: from deltas, or by training the run again, on a CPU to the same bytes."""

import logging
from pathlib import Path

from sft_atlas.files import epoch_folder, intact, read_json, write_json
from sft_atlas.models.deltas import SUFFIX, decode
from sft_atlas.spec import parse
from sft_atlas.stages.restore.spec import Spec
from sft_atlas.stages.train.run import train as train_again
from sft_atlas.stages.train.spec import Spec as TrainSpec

LOG = logging.getLogger(__name__)


def run(spec: Spec, root: Path) -> None:
    """Make the weights of a run's epochs as its frozen specification says, and write which were decoded or trained.

    Raises:
        FileNotFoundError: the run's frozen specification is gone, so that it cannot be trained again.
    """
    train, base = root / spec.inputs.train, root / spec.inputs.base
    folders = {epoch: epoch_folder(train, epoch) for epoch in spec.identity.epochs}
    files = {epoch: read_json(folder / "checkpoint.json")["files"] for epoch, folder in folders.items()}
    gone = [epoch for epoch, folder in folders.items() if not intact(folder, files[epoch])]
    for epoch in gone:
        for delta in sorted((folders[epoch] / "model").glob(f"*{SUFFIX}")):
            decode(delta, base.with_name("model"), delta.with_name(delta.name.removesuffix(SUFFIX)))
    left = [epoch for epoch in gone if not intact(folders[epoch], files[epoch])]
    if left:
        train_again(parse(TrainSpec, read_json(root / spec.labels.spec)), root, released=True)
    for epoch in left:
        if read_json(folders[epoch] / "checkpoint.json")["files"] != files[epoch]:
            LOG.warning(
                f"{folders[epoch]}: trained again, and not to the same bytes (GPUs do not repeat themselves, "
                "nor do other numbers of them): what is measured now is not of the weights that were measured before. "
                "Delete the run's other tables to have all measured on these, or let keep_weights be `deltas`"
            )
    write_json(root / spec.output, {"decoded": [epoch for epoch in gone if epoch not in left], "trained": left})
