# What the files beside this one use: the plan of the study, and how a job's frozen specification is found.
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sft_atlas.files import read_json, write_json
from sft_atlas.study.identity import spec_file
from sft_atlas.study.load import StudyError, load_config, study_path
from sft_atlas.study.table import plan_study

ROOT = Path(workflow.basedir)
ENVIRONMENT = str(ROOT / "envs/sft-atlas.yaml")
# Snakemake re-runs a job whose shell text has changed, so this text is not to be edited: it would retrain every model.
JOB = "python -m sft_atlas.job {params.spec} > {log} 2>&1"

try:
    CONFIG = load_config(config)
    STUDY_FILE = study_path(CONFIG, ROOT)
    FULL_PLAN = plan_study(STUDY_FILE, ROOT)
    STUDY = FULL_PLAN.study
    PLAN = FULL_PLAN.narrowed(CONFIG.only)
except StudyError as error:
    raise WorkflowError(str(error))

os.environ.update(
    SFT_ATLAS_DEVICE=CONFIG.device,
    SFT_ATLAS_MICRO_BATCH=str(CONFIG.micro_batch_size or ""),
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
)


def in_results(*paths):
    """Paths below the results folder as Snakemake sees them."""
    placed = [f"{CONFIG.results}/{path}" for path in paths]
    return placed if len(paths) > 1 else placed[0]


# Without the cells that are not selected (`only`), the study's own tables are partial ones, kept apart.
PART = "-partial" if CONFIG.only else ""
STUDY_SPECS = PLAN.study_specs(place=PART)
PARTIAL_SPECS = PLAN.study_specs(lambda path: Path(in_results(path)).exists(), "-partial")
SPECS = FULL_PLAN.specs | {spec.output: spec for spec in [*PARTIAL_SPECS.values(), *STUDY_SPECS.values()]}


def job_spec(output, hash8):
    """The specification of the job that makes an output: planned now, or frozen by the run that planned it."""
    planned = SPECS.get(output)
    if planned is not None and hash8 in (None, planned.hash):
        return planned.content()
    frozen = Path(in_results(spec_file(output, hash8)))
    if not frozen.exists():
        raise WorkflowError(f"{in_results(output)} belongs to no cell of {STUDY_FILE}; `sft-atlas cells` lists them")
    return read_json(frozen)


def job_spec_file(output, hash8):
    return in_results(spec_file(output, job_spec(output, hash8)["hash"]))


def job_inputs(pattern):
    """An input function: all that the job reads. A real run also freezes the job's specification here.

    The name of a specification holds the hash of its content, so an existing one never needs to be written again, and
    a queued job does what it was planned to do whatever becomes of the study file. A dry run writes nothing.
    """

    def inputs(wildcards):
        output, hash8 = pattern.format(**wildcards), wildcards.get("hash")
        spec = job_spec(output, hash8)
        starts_jobs = workflow.executor_plugin is not None and not workflow.dryrun and workflow.is_main_process
        if starts_jobs:
            freeze(Path(in_results(spec_file(output, spec["hash"]))), spec)
        return [in_results(path) for path in flat(spec["inputs"])] + spec["sources"]

    return inputs


def freeze(path, spec):
    if not path.exists():
        write_json(path, spec)


def job_param(pattern):
    """A params function for the path of the specification; it takes `output`, so Snakemake does not track it."""
    return lambda wildcards, output: job_spec_file(pattern.format(**wildcards), wildcards.get("hash"))


def job_identity(pattern):
    """A params function that Snakemake tracks, for outputs whose path does not hold their identity."""
    return lambda wildcards: job_spec(pattern.format(**wildcards), None)["hash"]


def flat(value):
    """Every path in nested lists and mappings, each once, in order."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return list(dict.fromkeys(path for part in parts for path in flat(part)))


def code_of(*places):
    """Source files as inputs: compared by content, so that a checkout redoes nothing, nor moving the project."""
    files = [path for place in places for path in sorted(ROOT.glob(place)) if path.is_file()]
    return [os.path.relpath(path) for path in files]


def gpus(wildcards):
    """GPUs of a job that runs a model."""
    return 1 if CONFIG.device == "cuda" else 0


onstart:
    if workflow.local_exec and CONFIG.share_imports and PLAN.matrix.runs:
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="sft-atlas-"))
        os.environ.update(SFT_ATLAS_WORKER=str(folder / "worker"), SFT_ATLAS_WORKER_OWNER=str(os.getpid()))


if not workflow.is_main_process:
    os.environ.pop("SFT_ATLAS_WORKER", None)
