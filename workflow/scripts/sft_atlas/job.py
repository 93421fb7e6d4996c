"""Runs one job from its frozen specification: `python -m sft_atlas.job SPEC_FILE`.

Everything a job does is in the file: it holds what was planned, whatever has happened to the study file since. The job
recomputes the hash in the file's name first. Heavy libraries are imported by the stage, not here, because a local run
hands the job to a process that has them already (see worker.py).
"""

import argparse
import importlib
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

from sft_atlas.files import cpu_seconds, read_json, write_json
from sft_atlas.runtime.scratch import own_scratch
from sft_atlas.runtime.stopping import StoppedError
from sft_atlas.study.identity import sha256, spec_file, spec_hash

# stage → the module that has `run(spec, root)`
STAGES = {
    "tokenizer": "sft_atlas.stages.base.run",
    "base": "sft_atlas.stages.base.run",
    "dataset": "sft_atlas.stages.dataset.run",
    "sample": "sft_atlas.stages.sample.run",
    "benchmark": "sft_atlas.stages.benchmark.run",
    "tokens": "sft_atlas.stages.tokens.run",
    "perplexity": "sft_atlas.stages.perplexity.run",
    "similarity": "sft_atlas.stages.similarity.run",
    "contamination": "sft_atlas.stages.contamination.run",
    "train": "sft_atlas.stages.train.run",
    "evaluate": "sft_atlas.stages.evaluate.run",
    "weights": "sft_atlas.stages.weights.run",
    "likelihoods": "sft_atlas.stages.likelihoods.run",
    "embedding": "sft_atlas.stages.embedding.run",
    "release": "sft_atlas.stages.release.run",
    "price": "sft_atlas.stages.estimate.run",
    "collect": "sft_atlas.stages.collect.run",
    "import": "sft_atlas.stages.import_scores.run",
    "audit": "sft_atlas.stages.analyse.run",
    "analyse": "sft_atlas.stages.analyse.run",
    "report": "sft_atlas.stages.report.run",
}
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval", "polars", "numpy")


class SpecError(ValueError):
    """A specification that is not the one its name promises."""


def read_spec(path: Path) -> dict[str, Any]:
    """Read a frozen specification and check it against its name.

    Raises:
        SpecError: the file was changed after it was frozen.
        FileNotFoundError: there is no such file.
    """
    spec = dict(read_json(path))
    found = spec_hash(spec["stage"], spec["version"], spec["identity"])
    expected = Path(spec_file(spec["output"], found)).name
    if found != spec["hash"] or path.name != expected:
        raise SpecError(
            f"{path}: its content has the hash {found}; it was changed after it was frozen: delete the file"
        )
    return spec


def results_root(path: Path, spec: dict[str, Any]) -> Path:
    """The results folder, found from where the specification stands in it."""
    return path.resolve().parents[len(Path(spec["output"]).parts) - 1]


def run(path: Path) -> None:
    """Do the job and record, beside its output, when, where, with which libraries and at what cost.

    Raises:
        Whatever the stage raises; a job that raises leaves no output.
    """
    spec = read_spec(path)
    root = results_root(path, spec)
    started, before = time.time(), cpu_seconds()
    stage = importlib.import_module(STAGES[spec["stage"]])
    imported = cpu_seconds()
    facts = stage.run(spec, root) or {}
    _write_record(path, spec, started, imported - before, cpu_seconds() - imported, facts)


def main(arguments: list[str] | None = None) -> int:
    """Run one job by hand or from a rule; errors a user can mend are one line, others a traceback."""
    parser = argparse.ArgumentParser(prog="python -m sft_atlas.job", description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path, help="the frozen specification, a file that ends in .spec.json")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to train on, one process each (default: 1)")
    asked = parser.parse_args(arguments)
    path = asked.spec
    # only what comes from the hub may ask for it: compute nodes have no network, and a job must not depend on one
    fetches = path.exists() and "hub" in read_json(path)["identity"].get("source", {})
    if not fetches:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    if asked.gpus > 1:
        os.environ["SFT_ATLAS_PROCESSES"] = str(asked.gpus)
    socket = os.environ.get("SFT_ATLAS_WORKER")
    if socket and not fetches and asked.gpus == 1:
        from sft_atlas.runtime import worker

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
    try:
        run(path)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr, flush=True)
        return 128 + signal.SIGTERM
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("SFT_ATLAS_TRACEBACK"):
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


def _write_record(
    path: Path, spec: dict[str, Any], started: float, imports: float, cpu: float, facts: dict[str, Any]
) -> None:
    record = path.with_name(path.name.replace(".spec.json", ".record.json"))
    write_json(
        record,
        {
            "stage": spec["stage"],
            "output": spec["output"],
            "output_sha256": sha256(results_root(path, spec) / spec["output"]),
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
