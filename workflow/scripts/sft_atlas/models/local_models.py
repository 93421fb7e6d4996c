"""A base that many jobs read is copied to a node's own disk once, where the site wants it (`local_models: true`)."""

import shutil
from pathlib import Path

from filelock import FileLock

from sft_atlas.files import free_bytes
from sft_atlas.runtime.scratch import node_disk
from sft_atlas.runtime.settings import current


def local_model(folder: Path) -> Path:
    """A base's model on the node's disk, copied there by the first job that asks; the shared one where it has no room.

    Only bases are copied (`bases/NAME-ID/model`): a fine-tuned checkpoint is read once or twice.
    """
    place = node_disk()
    if place is None or not current().local_models or folder.parent.parent.name != "bases":
        return folder
    models = place / "models"
    models.mkdir(parents=True, exist_ok=True)
    target = models / folder.parent.name
    # the disk is this node's own, where locks work
    with FileLock(models / f".{target.name}.lock"):
        if target.exists():
            return target
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size * 1.1 > free_bytes(models):
            return folder
        copying = models / f".{target.name}.copying"
        shutil.rmtree(copying, ignore_errors=True)
        shutil.copytree(folder, copying)
        copying.replace(target)
    return target
