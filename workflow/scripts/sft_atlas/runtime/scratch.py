"""A node's own disk for what need not be shared: temporary files and caches (and bases, see local_models.py).

    scratch: /local/$USER      # config.yaml; a path on the compute nodes, variables are theirs

Below it every job has a folder of its own, which it removes when it ends; what a killed job could not remove, the next
job on the same node does. Jobs on the log-in node, and those that fetch from the hub, do without it. Without `scratch`,
everything stays where the node has it (TMPDIR, HF_HOME).
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sft_atlas.runtime.processes import is_alive, process_start
from sft_atlas.runtime.settings import changed, current

# variables of libraries that cache in the home directory, which is shared, slow and small on many clusters
CACHES = {
    "TMPDIR": "tmp",
    "HF_HOME": "huggingface",
    "HF_DATASETS_CACHE": "datasets",
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}


@contextmanager
def own_scratch() -> Iterator[Path | None]:
    """A folder of this process on the node's disk, with temporary files and caches in it; None where there is none.

    Raises:
        ValueError: the configured place cannot be written to, or is none on this node.
    """
    place = node_disk()
    if place is None:
        yield None
        return
    try:
        jobs = place / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        remove_left(jobs)
        own = jobs / f"{os.environ.get('SLURM_JOB_ID', 'local')}-{os.getpid()}"
        own.mkdir(exist_ok=True)
        (own / "process").write_text(f"{platform.node()} {os.getpid()} {process_start(os.getpid())}")
        for folder in CACHES.values():
            (own / folder).mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"config.yaml: scratch: {place} cannot be used on this node: {error.strerror}") from None
    # $TMPDIR means another place from here on
    caches = {name: str(own / folder) for name, folder in CACHES.items()}
    before = {name: os.environ.get(name) for name in caches}
    os.environ.update(caches)
    tempfile.tempdir = None
    try:
        with changed(scratch=str(place.parent)):
            yield own
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        tempfile.tempdir = None
        shutil.rmtree(own, ignore_errors=True)


def remove_left(jobs: Path) -> None:
    """Remove the folders of this node's jobs that are gone: where nodes share the place, others are at work in it."""
    for folder in jobs.iterdir():
        try:
            host, process, start = (folder / "process").read_text().split(" ", 2)
            dead = host == platform.node() and not is_alive(int(process), float(start))
        except (OSError, ValueError):
            # another job is just making it, or it is no folder of ours
            continue
        if dead:
            shutil.rmtree(folder, ignore_errors=True)


def node_disk() -> Path | None:
    """Where config.yaml puts what belongs to a node (`scratch`), or None.

    Raises:
        ValueError: a variable in it is not set on this node, or it is not absolute.
    """
    configured = current().scratch
    if not configured:
        return None
    place = os.path.expandvars(configured)
    # a variable that is not set is left as it is; below the working folder would be the shared disk
    if "$" in place or not Path(place).is_absolute():
        raise ValueError(
            f"config.yaml: scratch: {configured!r} is {place!r} on this node; it has to be an absolute path, and its "
            "variables have to be set there"
        )
    return Path(place) / "sft-atlas"
