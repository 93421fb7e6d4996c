"""What SLURM and Snakemake cost per job: touch-only jobs through a cluster, and their share of the published study.

    python benchmarks/slurm.py FOLDER [--jobs 100] [--profile slurm] [--at-once 200]

FOLDER holds a cluster (`python -m tests.slurm.cluster start FOLDER`, which this does if it is not there); give `-` to
use the cluster of this machine. Jobs go through the plugin and the guard with the numbers of profiles/slurm, in a
workflow whose rule touches one file. Printed: submissions and finished jobs per minute, what one job takes beside its
work, the scheduler's own load (`sdiag`), and, for the job counts and hours of `studies/massive-sft.yaml`, the share.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SNAKEFILE = """
import os, sys
from pathlib import Path
from sft_atlas.cluster.guard import guard

rule all:
    input: expand("out/{n}", n=range(COUNT))
    localrule: True

rule touch:
    output: "out/{n}"
    resources: mem_mb=600, runtime=10
    shell: "date +%s.%N > {output}"

onstart:
    if workflow.is_main_process:
        guard(workflow.scheduler._executor, Path.cwd(), lambda text: print(text, file=sys.stderr))
"""


def run(jobs: int, at_once: int, first_poll: int, environment: dict[str, str]) -> dict[str, float]:
    """Send so many jobs through; returns seconds and CPU seconds."""
    folder = Path(tempfile.mkdtemp(prefix="sft-atlas-slurm-"))
    (folder / "Snakefile").write_text(SNAKEFILE.replace("COUNT", str(jobs)))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--executor",
        "slurm",
        "--jobs",
        str(at_once),
        "--scheduler",
        "greedy",
    ]
    options = {"init-seconds-before-status-checks": str(first_poll), "status-command": "squeue", "logdir": "logs"}
    command += [word for name, value in options.items() for word in (f"--slurm-{name}", value)]
    started = time.time()
    with (folder / "log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=True)
    wall = time.time() - started
    said = (folder / "log").read_text()
    finished = sorted(float(path.read_text()) for path in (folder / "out").iterdir())
    accounts = subprocess.run(
        ["squeue", "--states=all", "-h", f"--name={name_of(folder)}", "-o", "%S|%e|%V"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    rows = [[time.mktime(time.strptime(part, "%Y-%m-%dT%H:%M:%S")) for part in line.split("|")] for line in accounts]
    submitted = sorted(row[2] for row in rows)
    return {
        "jobs": jobs,
        "wall": wall,
        "submitting": max(1.0, submitted[-1] - submitted[0]),
        "waited": sum(row[0] - row[2] for row in rows) / len(rows),
        "job": sum(row[1] - row[0] for row in rows) / len(rows),
        "to_first_byte": finished[0] - started,
        "taken_over": said.count("is taken over"),
    }


def name_of(folder: Path) -> str:
    """The name of the jobs."""
    from sft_atlas.cluster.queue import name_of

    return name_of(folder)


def published() -> tuple[int, float]:
    """Jobs of the published study that go through SLURM, and the mean seconds of one by the plan."""
    from sft_atlas.cost.estimates import Estimates
    from sft_atlas.cost.summary import priced
    from sft_atlas.study.load import load_config
    from sft_atlas.study.table import plan_study

    plan = plan_study(ROOT / "studies/massive-sft.yaml", ROOT)
    prices = Estimates(plan, Path("/nonexistent"), load_config({}).device)
    local = ("dataset", "benchmark", "base", "release", "collect", "audit", "analyse", "report")
    jobs = [job for job in priced(prices, plan.needed()) if job.stage not in local]
    return len(jobs), sum(job.cost.seconds for job in jobs) / len(jobs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--at-once", type=int, nargs="+", default=[200])
    parser.add_argument("--first-poll", type=int, nargs="+", default=[30])
    options = parser.parse_args()
    environment = dict(os.environ)
    if options.folder != "-":
        from tests.slurm.cluster import Cluster

        cluster = Cluster(Path(options.folder))
        cluster.start()
        environment = cluster.environment
    count, work = published()
    print(f"the published study: {count:,} jobs through SLURM, {work / 60:.1f} minutes of work each by the plan")
    print(
        f"{'jobs':>6}{'at once':>9}{'poll s':>8}{'wall s':>8}{'jobs/min':>10}{'submits/min':>13}{'s in queue':>12}"
        f"{'s per job':>11}{'of a job':>10}{'study, h':>10}"
    )
    for at_once in options.at_once:
        for first_poll in options.first_poll:
            found = run(options.jobs, at_once, first_poll, environment)
            rate, submits = 60 * found["jobs"] / found["wall"], 60 * found["jobs"] / found["submitting"]
            print(
                f"{options.jobs:>6}{at_once:>9}{first_poll:>8}{found['wall']:>8.0f}{rate:>10.1f}{submits:>13.0f}"
                f"{found['waited']:>12.1f}{found['job']:>11.1f}{found['job'] / (found['job'] + work):>10.2%}"
                f"{count / rate / 60:>10.2f}",
                flush=True,
            )
    load = subprocess.run(["sdiag"], env=environment, capture_output=True, text=True, check=False).stdout
    wanted = (
        "Jobs submitted",
        "Jobs completed",
        "Last cycle",
        "Mean cycle",
        "Cycles per minute",
        "Server thread count",
    )
    print("\n".join(line.strip() for line in load.splitlines() if line.strip().startswith(wanted)))


if __name__ == "__main__":
    main()
