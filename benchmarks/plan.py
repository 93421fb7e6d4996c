"""How long the published study takes to plan, beside a bare workflow of the same jobs and edges, in one run.

    python benchmarks/plan.py [--study massive-sft] [--repeat 3] [--seeds 10] [--without-complete]

The bare workflow has a rule per stage whose jobs touch their output, with an input function and nothing else: what
Snakemake itself needs for a graph of this shape. Both are planned cold, then run with jobs that only touch (the study's
own rules and shell texts, with a `python` in front of the real one that touches what the specification names), so that
Snakemake has its records, and planned again. Then one target, and the same study with more seeds. Runs alternate and
medians of CPU seconds are compared, since wall seconds depend on what else the machine does.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sft_atlas.study.build import build_plan
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import expand
from sft_atlas.study.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("Snakefile", "config.yaml", "rules", "workflow", "envs", "studies")
TOUCH = """\
#!/bin/sh
# stands in for `python -m sft_atlas.job SPEC`: makes the output that the specification names, empty
output=$(sed -n 's/^ "output": "\\(.*\\)",\\{0,1\\}$/\\1/p' "$3")
: > "$(dirname "$3")/$(basename "$output")"
"""
BARE = """\
import json
with open("jobs.json") as file:
    JOBS = json.load(file)
wildcard_constraints:
    i="[0-9]+"
rule all:
    input: JOBS["all"]
"""
BARE_RULE = """\
rule {stage}:
    input: lambda w: JOBS["{stage}"][w.i]
    output: "{stage}/{{i}}"
    shell: "touch {{output}}"
"""


@dataclass(frozen=True)
class Timed:
    """Median seconds of some runs of a command."""

    cpu: float
    wall: float


class Workflow:
    """A folder in which `snakemake` is planned and run."""

    def __init__(self, folder: Path, arguments: tuple[str, ...] = ()) -> None:
        self.folder, self.arguments = folder, arguments

    def call(self, *arguments: str, path: str = "") -> tuple[float, float]:
        """CPU and wall seconds of one call."""
        environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
        command = [sys.executable, "-m", "snakemake", *arguments, *self.arguments]
        started = time.monotonic()
        with (self.folder / "snakemake.log").open("w") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
            _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed; see {self.folder}/snakemake.log")
        return used.ru_utime + used.ru_stime, time.monotonic() - started

    def plan(self, *targets: str) -> tuple[float, float]:
        """A dry run."""
        return self.call(*targets, "--dry-run", "--quiet", "rules")


def timed(repeat: int, *calls: tuple[Workflow, tuple[str, ...]]) -> list[Timed]:
    """Medians for several dry runs, taken in turns."""
    taken: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(repeat):
        for times, (workflow, targets) in zip(taken, calls, strict=True):
            times.append(workflow.plan(*targets))
    return [Timed(median(cpu for cpu, _ in times), median(wall for _, wall in times)) for times in taken]


def place_study(folder: Path, study: str, seeds: int) -> tuple[Workflow, Plan]:
    """The project with a study of so many seeds in a fresh folder."""
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    path = folder / "studies" / f"{study}.yaml"
    text = path.read_text()
    if text.count("\nseeds: [0]\n") != 1:
        sys.exit(f"{path}: expected a line `seeds: [0]` to multiply")
    path.write_text(text.replace("\nseeds: [0]\n", f"\nseeds: {list(range(seeds))}\n"))
    declared = load_study(path)
    plan = build_plan(declared, expand(declared, path), study)
    return Workflow(folder, ("--config", f"study={study}", "share_imports=false", "check_disk=false")), plan


def place_bare(folder: Path, plan: Plan) -> Workflow:
    """The same jobs and edges, bare."""
    folder.mkdir()
    specs = [*plan.by_output.values(), *plan.study_specs().values()]
    places = {spec.output: f"{spec.stage}/{number}" for number, spec in enumerate(specs)}
    jobs: dict[str, object] = {"all": [places[specs[-1].output]]}
    text = BARE
    for stage in dict.fromkeys(spec.stage for spec in specs):
        members = [spec for spec in specs if spec.stage == stage]
        jobs[stage] = {places[s.output].split("/")[1]: [places[path] for path in s.input_files()] for s in members}
        text += BARE_RULE.format(stage=stage)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    (folder / "Snakefile").write_text(text)
    return Workflow(folder)


def complete(study: Workflow, bare: Workflow, folder: Path) -> None:
    """Run both with jobs that touch, so that every output has Snakemake's record."""
    fake = folder / "bin"
    fake.mkdir()
    (fake / "python").write_text(TOUCH)
    (fake / "python").chmod(0o755)
    settings = ("--cores", "2", "--scheduler", "greedy", "--quiet", "all")
    bare.call(*settings)
    study.call(*settings, path=str(fake))


def main() -> None:
    """Print a table of CPU and wall seconds, and of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="massive-sft", help="a name in studies/")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each plan")
    parser.add_argument("--seeds", type=int, default=10, help="how many times larger the large study is")
    parser.add_argument("--without-complete", action="store_true", help="do not run the touching jobs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study, plan = place_study(folder / "study", options.study, 1)
        bare = place_bare(folder / "bare", plan)
        print(f"{plan.matrix.checkpoints} models, {len(plan.by_output) + 4} jobs; medians of {options.repeat}")
        print(f"{'':<34}{'CPU s':>8}{'wall s':>8}{'ratio of CPU':>14}")
        target = "results/" + plan.job("evaluate", next(iter(plan.matrix.runs))).output
        cold, floor, one = timed(options.repeat, (study, ()), (bare, ()), (study, (target,)))
        show("bare, cold", floor)
        show("study, cold", cold, floor, "bare")
        show("study, cold, one target", one)
        large, large_plan = place_study(folder / "large", options.study, options.seeds)
        (grown,) = timed(1, (large, ()))
        show(f"{large_plan.matrix.checkpoints} models, cold", grown, cold, f"{plan.matrix.checkpoints} models")
        if options.without_complete:
            return
        complete(study, bare, folder)
        done, floor, one = timed(options.repeat, (study, ()), (bare, ()), (study, (target,)))
        log = (study.folder / "snakemake.log").read_text()
        if "Nothing to be done" not in log:
            sys.exit(f"the completed study still plans jobs:\n{log[-2000:]}")
        show("bare, complete", floor)
        show("study, complete", done, floor, "bare")
        show("study, complete, one target", one)


def show(name: str, found: Timed, other: Timed | None = None, what: str = "") -> None:
    """One line of the table."""
    ratio = f"{found.cpu / other.cpu:>8.2f} × {what}" if other else ""
    print(f"{name:<34}{found.cpu:>8.2f}{found.wall:>8.2f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
