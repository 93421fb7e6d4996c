"""What an adapter says that it belongs to: the hub's base and its commit, so that it can be loaded by name anywhere."""

from pathlib import Path

from sft_atlas.files import read_json, write_json
from sft_atlas.study.identity import is_commit
from sft_atlas.study.model import Hub

FILE = "hub.json"


def record_origin(manifest: Path, hub: Hub | None, snapshot: Path) -> None:
    """Note beside a base that was fetched which commit it is: the hub's cache names a snapshot's folder by it.

    Not in the manifest, from which runs are known: a branch and the commit behind it are the same base.
    """
    if hub and is_commit(snapshot.name):
        write_json(manifest.with_name(FILE), {"id": hub.id, "commit": snapshot.name})


def name_of(manifest: Path) -> tuple[str, str]:
    """Name and revision of a base: on the hub if it comes from there, else its name and identity in the results."""
    noted = manifest.with_name(FILE)
    if noted.is_file():
        origin = read_json(noted)
        return str(origin["id"]), str(origin["commit"])
    for file in manifest.parent.glob("manifest-*.spec.json"):
        # fetched before the commit was noted
        hub = read_json(file)["identity"].get("source", {}).get("hub")
        if hub and is_commit(hub["revision"]):
            return str(hub["id"]), str(hub["revision"])
    name, _, identity = manifest.parent.name.rpartition("-")
    return name, identity
