"""Where the time of the micro study goes: imports, compute and Snakemake, per stage, with and without shared imports.

    python benchmarks/micro.py [--study studies/micro.yaml] [--without] [--keep]

Runs the study from nothing in a temporary folder and reads the records that every job leaves. Compute is what jobs used
after their imports; a job of its own pays its imports again, which `--without` measures on the same study in the same
call. CPU seconds are those of all processes (children included), so the share outside of compute is what is left of the
total. Wall seconds depend on the machine; a calibration (seconds for a fixed loop of matrix products) stands beside.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "logs/worker.json"


def run_study(study: str, share_imports: bool, folder: Path) -> dict[str, float]:
    """Run a study into a folder; returns wall and CPU seconds of everything it started."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    config = [f"study={study}", f"results={folder / 'results'}", f"share_imports={share_imports}"]
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--nolock", "--config", *config]
    WORKER.unlink(missing_ok=True)
    with (folder / "snakemake.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, cpu = time.time() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    worker = {"import_cpu_seconds": 0.0, "cpu_seconds": 0.0}
    if share_imports:
        # the worker is no child of this process: it says itself what it used, when it has seen the workflow end
        while "cpu_seconds" not in (worker := json.loads(WORKER.read_text())):
            time.sleep(0.1)
    return {"wall": wall, "cpu": cpu + worker["cpu_seconds"], "imports": worker["import_cpu_seconds"]}


def stages(folder: Path) -> dict[str, list[float]]:
    """Jobs, wall seconds, CPU seconds of compute and of imports by stage, from the records beside the results."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for path in folder.rglob("*.record.json"):
        record = json.loads(path.read_text())
        row = found[record["stage"]]
        row[0] += 1
        row[1] += record["wall_seconds"]
        row[2] += record["cpu_seconds"]
        row[3] += record["import_cpu_seconds"]
    return dict(found)


def calibration() -> float:
    """Seconds for 200 products of 512 x 512 matrices in one thread: how fast this machine is now."""
    import numpy

    matrix = numpy.random.default_rng(0).standard_normal((512, 512)).astype("float32")
    started = time.process_time()
    for _ in range(200):
        matrix = matrix @ matrix
        matrix /= abs(matrix).max()
    return time.process_time() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="studies/micro.yaml")
    parser.add_argument("--without", action="store_true", help="run a second time with one process per job")
    parser.add_argument("--keep", action="store_true", help="leave the results, and say where they are")
    options = parser.parse_args()
    print(f"calibration: {calibration():.2f} s for 200 products of 512 x 512 in one thread\n")
    for share in [True, False] if options.without else [True]:
        folder = Path(tempfile.mkdtemp(prefix="sft-atlas-benchmark-"))
        try:
            total = run_study(options.study, share, folder)
            report(total, share, folder)
        finally:
            if options.keep:
                print(f"results: {folder / 'results'}")
            else:
                shutil.rmtree(folder)


def report(total: dict[str, float], share: bool, folder: Path) -> None:
    """Print one run's table."""
    rows = stages(folder / "results")
    imports = total["imports"] + sum(row[3] for row in rows.values())
    compute = sum(row[2] for row in rows.values())
    everything = total["cpu"]
    print(f"{'shared imports' if share else 'one process per job'}: {total['wall']:.0f} s wall")
    print(f"{'stage':<12}{'jobs':>6}{'wall s':>10}{'CPU s':>10}")
    for stage, (jobs, wall, cpu, _) in sorted(rows.items(), key=lambda item: -item[1][2]):
        print(f"{stage:<12}{jobs:>6}{wall:>10.1f}{cpu:>10.1f}")
    rest = everything - compute - imports
    for name, value in (("compute", compute), ("imports", imports), ("Snakemake, start of processes", rest)):
        print(f"{name:<30}{value:>8.1f} CPU s{value / everything:>8.1%}")
    print(f"outside of compute: {1 - compute / everything:.1%}\n")


if __name__ == "__main__":
    main()
