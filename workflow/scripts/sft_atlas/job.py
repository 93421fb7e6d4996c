"""Runs one job from its frozen specification: `python -m sft_atlas.job SPEC_FILE`.

Everything a job does is in the file: it holds what was planned, whatever has happened to the study file since. The job
recomputes the hash in the file's name first. Heavy libraries are imported by the stage, not here, because a local run
hands the job to a process that has them already (see worker.py).
"""

import argparse
import logging
import os
import platform
import resource
import signal
import sys
import time
import traceback
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from sft_atlas import failures, worker
from sft_atlas.errors import CellError, SpecError
from sft_atlas.files import cpu_seconds, read_json, results_root, write_json
from sft_atlas.hashing import sha256
from sft_atlas.runtime import log
from sft_atlas.runtime.scratch import own_scratch
from sft_atlas.runtime.settings import change, current
from sft_atlas.runtime.stopping import StoppedError
from sft_atlas.spec import JobSpec, parse
from sft_atlas.stage import stages
from sft_atlas.study.identity import spec_file, spec_hash
from sft_atlas.study.plan import leaves

LOG = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval", "polars", "numpy")


def read_spec(path: Path) -> JobSpec:
    """Read a frozen specification and check it against its name and its stage.

    Raises:
        SpecError: the file was changed after it was frozen, or is none that this version reads.
        FileNotFoundError: there is no such file.
    """
    spec = dict(read_json(path))
    found = spec_hash(spec["stage"], spec["version"], spec["identity"])
    expected = Path(spec_file(spec["output"], found)).name
    if found != spec["hash"] or path.name != expected:
        raise SpecError(
            f"{path}: its content has the hash {found}; it was changed after it was frozen: delete the file"
        )
    if spec["stage"] not in stages():
        raise SpecError(f"{path}: there is no stage {spec['stage']!r} in this version of SFT Atlas")
    model: type[JobSpec] = stages()[spec["stage"]].module("spec").Spec
    return parse(model, spec)


def run(path: Path) -> None:
    """Do the job and record, beside its output, when, where, with which libraries and at what cost.

    A cell that will never have a result ends with one that says why (failures.py), and so do those that read it.

    Raises:
        Whatever the stage raises; a job that raises leaves no output.
    """
    spec = read_spec(path)
    stage, root = stages()[spec.stage], results_root(path, spec.output)
    started, before = time.time(), cpu_seconds()
    module = stage.module("run")
    imported = cpu_seconds()
    cause = (
        failures.inherited(root, leaves(spec.inputs.model_dump(exclude_none=True))) if stage.scope != "study" else None
    )
    try:
        if cause:
            raise CellError(cause)
        facts = module.run(spec, root) or {}
    except CellError as error:
        if not (stage.fails or cause):
            raise
        LOG.info(f"failed for good: {error}")
        facts = failures.record(root / spec.output, spec.stage, str(error))
    _write_record(path, spec, started, imported - before, cpu_seconds() - imported, facts)


def main(arguments: list[str] | None = None) -> int:
    """Run one job by hand or from a rule; errors a user can mend are one line, others a traceback."""
    parser = argparse.ArgumentParser(prog="python -m sft_atlas.job", description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="?", type=Path, help="the frozen specification, a file that ends in .spec.json")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to train on, one process each (default: 1)")
    parser.add_argument("--serve", nargs=2, metavar=("SOCKET", "OWNER"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.serve:
        worker.serve(Path(asked.serve[0]), int(asked.serve[1]), guarded)
        return 0
    if asked.spec is None:
        parser.error("the following arguments are required: spec")
    path = asked.spec
    # only what comes from the hub may ask for it: compute nodes have no network, and a job must not depend on one
    fetches = path.exists() and "hub" in read_json(path)["identity"].get("source", {})
    if not fetches:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    if asked.gpus > 1:
        change(processes=asked.gpus)
    socket = current().worker
    if socket and not fetches and asked.gpus == 1:
        return worker.request(Path(socket), path)
    try:
        # what is fetched stays in the hub's own cache, since a base is links to it
        with nullcontext() if fetches else own_scratch():
            return guarded(path)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def guarded(path: Path) -> int:
    """Run a job; report its failure and return the exit status."""
    log.set_up()
    try:
        run(path)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr, flush=True)
        return 128 + signal.SIGTERM
    except (ValueError, FileNotFoundError) as error:
        if current().traceback:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except Exception as error:
        traceback.print_exc()
        # the last line is what progress and status show
        said = str(error).strip().splitlines() or [""]
        print(f"error: {type(error).__name__}: {said[0]}", file=sys.stderr, flush=True)
        return 1
    return 0


def _write_record(path: Path, spec: JobSpec, started: float, imports: float, cpu: float, facts: dict[str, Any]) -> None:
    record = path.with_name(path.name.replace(".spec.json", ".record.json"))
    write_json(
        record,
        {
            "stage": spec.stage,
            "output": spec.output,
            "output_sha256": sha256(results_root(path, spec.output) / spec.output),
            "started": started,
            "wall_seconds": time.time() - started,
            "cpu_seconds": cpu,
            "import_cpu_seconds": imports,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "host": platform.node(),
            "machine": platform.machine(),
            # a run on several GPUs uses them in processes of its own
            "device": "gpu" if facts.get("gpu") else _device(),
            "python": platform.python_version(),
            "libraries": {name: _version(name) for name in LIBRARIES},
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            **({"facts": facts} if facts else {}),
        },
    )


def _device() -> str:
    """`gpu` if the job has used one: only then has torch set CUDA up in this process."""
    torch = sys.modules.get("torch")
    return "gpu" if torch is not None and torch.cuda.is_initialized() else "cpu"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
