# What the files beside this one use: the plan of the study, and how a job's frozen specification is found.
import gc
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from sft_atlas.cluster import session
from sft_atlas.code import code_of
from sft_atlas.errors import StudyError
from sft_atlas.files import free_bytes, read_json, write_json
from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.summary import disk_at_peak, priced, schedule, total
from sft_atlas.study.build import check_examples
from sft_atlas.study.checks import check_places
from sft_atlas.study.deepspeed import read_deepspeed
from sft_atlas.study.identity import spec_file
from sft_atlas.study.load import check_device, load_config, study_path
from sft_atlas.nodes import Whole
from sft_atlas.study.plan import Spec, leaves
from sft_atlas.study.table import plan_study
from sft_atlas.units import hours, size
from sft_atlas.runtime.settings import change
from sft_atlas.worker import share_imports, shares_imports
from sft_atlas.stage import stages

ROOT = Path(workflow.basedir)
ENVIRONMENT = str(ROOT / "envs/sft-atlas.yaml")
# Snakemake re-runs a job whose shell text has changed, so this text is not to be edited: it would retrain every model.
JOB = "python -m sft_atlas.job {params.spec} > {log} 2>&1"

try:
    CONFIG = load_config(config)
    check_places(CONFIG, ROOT)
    STUDY_FILE = study_path(CONFIG, ROOT)
    FULL_PLAN = plan_study(STUDY_FILE, ROOT, Path(CONFIG.results))
    STUDY = FULL_PLAN.study
    PLAN = FULL_PLAN.narrowed(CONFIG.only)
    check_device(CONFIG, STUDY, STUDY_FILE)
    check_examples(PLAN, Path(CONFIG.results))
    if CONFIG.deepspeed:
        read_deepspeed(Path(CONFIG.deepspeed))
except StudyError as error:
    raise WorkflowError(str(error))

# Jobs share what one process has imported where they share its file system and its processes; images may have their own.
SHARE_IMPORTS = CONFIG.share_imports and "apptainer" not in map(str, workflow.deployment_settings.deployment_method)

os.environ.update(SFT_ATLAS_ROOT=str(ROOT), HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
change(
    device=CONFIG.device,
    deepspeed=os.path.abspath(CONFIG.deepspeed) if CONFIG.deepspeed else "",
    micro_batch_size=CONFIG.micro_batch_size,
    scratch=CONFIG.scratch or "",
    local_models=CONFIG.local_models,
    save_minutes=CONFIG.save_minutes,
    keep_state=CONFIG.keep_state,
)


def in_results(*paths):
    """Paths below the results folder as Snakemake sees them."""
    placed = [f"{CONFIG.results}/{path}" for path in paths]
    return placed if len(paths) > 1 else placed[0]


# Without the cells that are not selected (`only`), the study's own tables are partial ones, kept apart.
PART = "-partial" if CONFIG.only else ""
STUDY_SPECS = PLAN.study_specs(place=PART)
PARTIAL_SPECS = PLAN.study_specs(lambda path: Path(in_results(path)).exists(), "-partial")
SPECS = FULL_PLAN.by_output | {spec.output: spec for spec in [*PARTIAL_SPECS.values(), *STUDY_SPECS.values()]}
# Costs are worked out when asked for; only the process that queues jobs asks finished ones what they took.
ESTIMATES = Estimates(
    FULL_PLAN,
    Path(CONFIG.results),
    CONFIG.device,
    CONFIG.micro_batch_size,
    workflow.is_main_process,
    CONFIG.gpu_memory_gb,
    CONFIG.max_runtime,
)
PRICED = f"{PLAN.name}{PART}/plan.html"
# What is loaded by now stays; without it in every later garbage collection a dry run takes a sixth less time.
gc.freeze()


def planned_jobs():
    """The jobs of the selected cells, the study's own tables included."""
    return [*PLAN.needed(), *(spec for spec in STUDY_SPECS.values() if spec.stage != "complete")]


@cache
def estimate_spec():
    """The job that writes the plan's page; what it says is worked out only when the page is asked for."""
    from sft_atlas.stages.estimate.facts import facts

    specs = planned_jobs()
    done = [spec.output for spec in specs if Path(in_results(spec.output)).exists()]
    content = facts(PLAN, ESTIMATES, priced(ESTIMATES, specs, done), CONFIG.gpus, CONFIG.gpu_memory_gb)
    return Spec("estimate", PRICED, content, key=Whole(PLAN.name))


def planned_spec(output):
    """The specification that the study gives an output, or None."""
    return estimate_spec() if output == PRICED else SPECS.get(output)


def job_spec(output, hash8):
    """The specification of the job that makes an output: planned now, or frozen by the run that planned it."""
    planned = planned_spec(output)
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

    The name of a specification holds the hash of its science, so that of an existing one nothing but labels and places
    is ever written again, and a queued job does what it was planned to do whatever becomes of the study file. A dry run
    writes nothing.
    """

    def inputs(wildcards):
        output, hash8 = pattern.format(**wildcards), wildcards.get("hash")
        spec = job_spec(output, hash8)
        starts_jobs = workflow.executor_plugin is not None and not workflow.dryrun and workflow.is_main_process
        if starts_jobs:
            begin_run()
            freeze(Path(in_results(spec_file(output, spec["hash"]))), spec)
        gate = gate_of(spec, output)
        paths = [path for path in leaves(spec["inputs"]) if path != spec["inputs"].get("compared")]
        return [in_results(path) for path in paths] + spec["sources"] + gate

    return inputs


def gate_of(spec, output):
    """The comparison that has to be there before anything is trained, and that makes nothing stale that was.

    A finished run keeps the inputs that its frozen specification had: Snakemake would redo it for another one. For what
    is not there yet it is a plain input: a job whose output is missing is forgotten by Snakemake (9.27) if all that is
    made anew of its inputs is `ancient`.
    """
    if spec["stage"] != "train" or "compared" not in spec["inputs"]:
        return []
    finished = Path(in_results(output)).exists()
    frozen = Path(in_results(spec_file(output, spec["hash"])))
    if (finished or not workflow.is_main_process) and frozen.exists():
        if "compared" not in read_json(frozen)["inputs"]:
            return []
    gate = in_results(spec["inputs"]["compared"])
    return [ancient(gate) if finished else gate]


@cache
def begin_run():
    """Enter this run before Snakemake asks for its lock: one that a killed run has left is removed here."""
    session.begin(tell)


def tell(text):
    print(text, file=sys.stderr, flush=True)


def freeze(path, spec):
    # where sources lie and labels are in no hash: what has changed of them is written anew
    frozen = read_json(path) if path.exists() else {}
    if frozen and Path(in_results(spec["output"])).exists():
        spec = spec | {"inputs": frozen["inputs"]}
    if any(frozen.get(name) != spec[name] for name in ("sources", "labels", "inputs")):
        write_json(path, spec)


def job_param(pattern):
    """A params function for the path of the specification; it takes `output`, so Snakemake does not track it."""
    return lambda wildcards, output: job_spec_file(pattern.format(**wildcards), wildcards.get("hash"))


def gpus_param(pattern):
    """The same; a job that one GPU cannot hold is told how many it has."""

    def param(wildcards, output, resources):
        spec = job_param(pattern)(wildcards, output)
        return f"{spec} --gpus {resources.gpu}" if str(resources.gpu).isdigit() and int(resources.gpu) > 1 else spec

    return param


def job_identity(pattern):
    """A params function that Snakemake tracks, for outputs whose path does not hold their identity."""
    return lambda wildcards: job_spec(pattern.format(**wildcards), None)["hash"]


def code_behind(stage):
    """The code of a stage as inputs: compared by content, so that a checkout redoes nothing, nor moving the project."""
    return [os.path.relpath(path) for path in code_of(stages()[stage], ROOT / "workflow/scripts/sft_atlas")]


@cache
def restored_outputs():
    """Outputs that are finished for good: they were made on restored weights, which are gone again."""
    if "restore" not in stages():
        return []
    from sft_atlas.stages.restore import finished

    return finished(FULL_PLAN, Path(CONFIG.results))


def unfinished(stage):
    """A pattern of a stage's hashes, of all that a plan may still make."""
    done = [SPECS[output].hash for output in restored_outputs() if SPECS[output].stage == stage]
    return "(?!{})[0-9a-f]{{8}}".format("|".join(done) or "none")


def stage_targets():
    """Outputs by the name to type for them: those of every stage of the cells that are selected."""
    targets = {}
    for stage in stages().values():
        if stage.scope != "study":
            targets.setdefault(stage.target or stage.name, []).extend(spec.output for spec in PLAN.select(stage.name))
    return targets


def needs(pattern, *names):
    """The resources of a job by its price: by size of model and data, and growing with each attempt."""

    def need(name):
        def amount(wildcards, attempt):
            output = pattern.format(**wildcards)
            spec = planned_spec(output)
            if spec is None:
                stage = job_spec(output, wildcards.get("hash"))["stage"]
                return ESTIMATES.largest(stage, name, attempt)
            return ESTIMATES.resource(spec, name, attempt)

        return amount

    return {name: need(name) for name in names or ("gpu", "mem_mb", "runtime")}


def threads_of(pattern):
    """The threads of a job; for numeric work the study's, since sums depend on them."""
    return needs(pattern, "threads")["threads"]


def check_disk(jobs):
    """Refuse to start what the disk cannot hold at its fullest.

    Raises:
        WorkflowError: the jobs to come write more than is free; says how much.
    """
    outputs = {path.removeprefix(f"{CONFIG.results}/") for job in jobs for path in map(str, job.output)}
    coming = priced(ESTIMATES, [spec for output, spec in SPECS.items() if output in outputs])
    wanted = disk_at_peak(coming, schedule(coming, CONFIG.gpus), STUDY.keep_weights)
    free = free_bytes(Path(CONFIG.results))
    if wanted > free:
        raise WorkflowError(
            f"the jobs of this run will take about {size(wanted)} below {CONFIG.results}, where {size(free)} are free; "
            "make room, set `results` in config.yaml to another disk, narrow the run with `only`, keep fewer weights "
            "(keep_weights in the study), or set `check_disk: false` if you know better"
        )


def check_files(jobs):
    """Refuse to start what leaves more files than config.yaml allows: many sites have a quota of inodes.

    Raises:
        WorkflowError: says how many files are to come.
    """
    outputs = {path.removeprefix(f"{CONFIG.results}/") for job in jobs for path in map(str, job.output)}
    coming = total(priced(ESTIMATES, [spec for output, spec in SPECS.items() if output in outputs])).files
    if coming > CONFIG.max_files:
        raise WorkflowError(
            f"config.yaml: max_files: the jobs of this run will leave about {coming:,} files below {CONFIG.results}, "
            f"and {CONFIG.max_files:,} are allowed; raise it, or narrow the run with `only`"
        )


def check_retries(jobs):
    """Refuse to start a job that the cluster's longest time and the profile's retries do not let finish.

    Raises:
        WorkflowError: says how many retries it takes.
    """
    outputs = {path.removeprefix(f"{CONFIG.results}/") for job in jobs for path in map(str, job.output)}
    longest = max((ESTIMATES.attempts(spec) for output, spec in SPECS.items() if output in outputs), default=1)
    retries = workflow.execution_settings.retries
    if longest > 1 + retries:
        raise WorkflowError(
            f"config.yaml: max_runtime: the longest job needs about {longest} times {CONFIG.max_runtime} minutes, and "
            f"is tried {1 + retries} times; give --retries {longest + 1}, or set it in the profile"
        )


def tell_failures():
    """Say at the end how many cells have failed for good; the report lists them all."""
    collected = Path(in_results(STUDY_SPECS["collect"].output))
    failed = read_json(collected).get("failed", []) if collected.exists() else []
    if failed:
        tell(f"cells failed for good, with {len(failed)} different reasons; the first: {failed[0]}")
        tell("table `missing` of the report lists them; `sft-atlas retry CELL` has one tried again")


onstart:
    if CONFIG.check_disk and workflow.is_main_process:
        check_disk(workflow.dag.needrun_jobs())
    if CONFIG.max_files and workflow.is_main_process:
        check_files(workflow.dag.needrun_jobs())
    if workflow.is_main_process:
        check_revisions(workflow.dag.needrun_jobs())
    if workflow.is_main_process and not workflow.local_exec:
        # what runs in this process does so on the log-in node, and the scratch is one of compute nodes
        change(scratch="")
        check_retries(workflow.dag.needrun_jobs())
    if workflow.is_main_process and workflow.executor_plugin.name == "slurm":
        from sft_atlas.cluster.guard import GuardError, guard
        from sft_atlas.cluster.queue import QueueError

        try:
            guard(workflow.scheduler._executor, Path.cwd(), tell)
        except (GuardError, QueueError) as error:
            raise WorkflowError(str(error))
    if workflow.local_exec and SHARE_IMPORTS and PLAN.matrix.runs:
        share_imports()


onsuccess:
    if workflow.is_main_process and not workflow.dryrun:
        tell_failures()


if not workflow.is_main_process and not shares_imports():
    change(worker="")
    # a job of the cluster that does several of ours (--groups): they share imports and bases as local jobs do
    if SHARE_IMPORTS and "--local-groupid" in sys.argv:
        share_imports()
