"""How large and how slow is the report of the published study's whole matrix: 1,070 models and their bases?

    python benchmarks/report.py [--texts N] [--out FOLDER]

Invented numbers in every cell that `studies/massive-sft.yaml` declares go through audit, analysis and report; seconds
of each are printed with those of a calibration loop on this machine (compare ratios), then the bytes of the page and of
its largest figures. Ends with an error if the page is 5 MB or more.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.report.page import build
from sft_atlas.stages.audit.run import audit
from sft_atlas.study.analyses import AnalysisOptions
from sft_atlas.study.plan import Plan
from sft_atlas.study.table import plan_study

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 5_000_000
LAYERS, EPOCH_STEPS = 32, 40


def invented(plan: Plan, texts: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Every input table of a study, one row for each that a finished study would have; `texts` per benchmark."""
    rng, study = np.random.default_rng(seed), plan.study
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables.INPUTS | tables.RECORDS}
    measures = [
        {"benchmark": name, "shots": shots, "metric": "judge_1_10" if name == "mt_bench" else "exact_match"}
        for name, benchmark in study.benchmarks.items()
        for shots in benchmark.shots
    ]
    bases = {base: rng.uniform(0.2, 0.6, len(measures)) for base in plan.bases}
    for base, values in bases.items():
        cell = {"base": base, "epoch": 0}
        _measured(rows, cell, {}, measures, values, values, rng)
        for sample in sorted({key.sample for key in plan.matrix.runs if key.base == base}):
            _sample(rows, plan, base, sample, rng)
    effects = {
        (sample.dataset, k): rng.normal(0, 0.05)
        for sample in plan.matrix.samples.values()
        for k in range(len(measures))
    }
    for run, (key, kept) in enumerate(plan.matrix.runs.items()):
        sample, recipe = plan.matrix.samples[key.sample], study.recipes[key.recipe]
        about = {"dataset": sample.dataset, "held_out": sample.held_out, "size": _rows(plan, key.sample)}
        about |= {"method": recipe.method, "schedule": recipe.schedule}
        name = {"base": key.base, "sample": key.sample, "recipe": key.recipe, "seed": key.seed}
        shift = np.array([effects[sample.dataset, k] for k in range(len(measures))])
        for epoch, blocks in kept.epochs.items():
            values = bases[key.base] + shift * (1 - 0.7**epoch) + rng.normal(0, 0.01, len(measures))
            described = about | {"block": ",".join(sorted(set(blocks)))}
            _measured(rows, name | {"epoch": epoch}, described, measures, values, bases[key.base], rng)
        _trained(rows, name, about, max(kept.epochs), run, rng)
    built = {table: tables.build(table, part) for table, part in rows.items()}
    cells = built["scores"].select("base", "sample", "recipe", "seed", "epoch").unique().sort(pl.all())
    return built | {"likelihoods": _likelihoods(cells, [*study.benchmarks], texts, rng)}


def _rows(plan: Plan, sample: str) -> int:
    """Rows of a sample, mixtures included."""
    found = plan.matrix.samples[sample]
    return sum(_rows(plan, part) for part in found.parts) if found.parts else found.declared.size or 1000


def _measured(
    rows: dict[str, list[dict[str, Any]]],
    cell: dict[str, Any],
    about: dict[str, Any],
    measures: list[dict[str, Any]],
    values: np.ndarray,
    before: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Scores and gains, change of layers, and dimensions of one model."""
    for measure, value, base in zip(measures, values.clip(0.01, 0.99).tolist(), before.tolist(), strict=True):
        scale = 10 if measure["metric"] == "judge_1_10" else 1
        score = {"score": value * scale, "stderr": 0.01 * scale, "n": 1000}
        rows["scores"].append(cell | measure | about | score)
        if about:
            gain = {"gain": (value - base) * scale, "base_score": base * scale, "matched": False}
            rows["gains"].append(cell | measure | about | score | gain)
    profile = rng.uniform(0.01, 0.02, (LAYERS, 4)).tolist()
    for layer in range(LAYERS):
        place = cell | about | {"layer": layer, "depth": layer / (LAYERS - 1)}
        rows["dimensions"].append(place | {"dimension": 10 + 5 * profile[layer][0], "stderr": 0.2, "texts": 1950})
        for module, relative in zip(("all", "attention", "mlp", "norm") if about else (), profile[layer], strict=False):
            change = {"norm": relative * 20, "base_norm": 20.0, "relative": relative, "cosine_distance": relative**2}
            rows["layers"].append(place | {"module": module} | change)


def _sample(
    rows: dict[str, list[dict[str, Any]]], plan: Plan, base: str, sample: str, rng: np.random.Generator
) -> None:
    """Lengths, perplexities and similarities of a sample under a base."""
    size, mean = _rows(plan, sample), float(rng.uniform(80, 400))
    lengths = {"mean_tokens": mean, "mean_completion_tokens": mean / 2}
    counts = {"rows": size, "tokens": int(mean * size), "trained_tokens": int(mean * size / 2), "truncated": 0}
    rows["samples"].append({"base": base, "sample": sample, **counts, **lengths})
    perplexity = float(rng.uniform(2, 40))
    about = {"perplexity": perplexity, "perplexity_stderr": 0.1, "perplexity_full": perplexity * 2}
    about |= lengths | {"dataset": plan.matrix.samples[sample].dataset, "size": size, "perplexity_full_stderr": 0.1}
    for benchmark in plan.study.benchmarks:
        similar = {"similarity": float(rng.uniform(0, 0.3)), "embedding_similarity": float(rng.uniform(0, 0.9))}
        rows["predictors"].append({"base": base, "sample": sample, "benchmark": benchmark} | about | similar)


def _trained(
    rows: dict[str, list[dict[str, Any]]],
    name: dict[str, Any],
    about: dict[str, Any],
    epochs: int,
    run: int,
    rng: np.random.Generator,
) -> None:
    """The log of one run, as thin as the collecting stage makes it, and its facts."""
    steps = EPOCH_STEPS * epochs
    loss = 1 + np.exp(-np.arange(40) / 10) + rng.normal(0, 0.05, 40)
    for point, value in enumerate(loss.tolist(), 1):
        at = {"step": steps * point // 40, "epoch": epochs * point / 40, "loss": value}
        at |= {"learning_rate": 1e-5 * (1 - point / 41), "grad_norm": float(rng.uniform(0.5, 2))}
        rows["curves"].append(name | about | at)
    facts = {"run": f"{run:08x}", "epochs": epochs, "steps": steps, "tokens": steps * 1000, "method": about["method"]}
    rows["training"].append(name | facts | {"final_loss": 1.0})
    seconds = {"wall_seconds": 3600.0, "cpu_seconds": 4000.0, "gpu_seconds": 3600.0, "peak_memory_mb": 9000.0}
    rows["cost"].append({"stage": "train", "output": f"runs/{run}/train.json"} | name | seconds)


def _likelihoods(cells: pl.DataFrame, benchmarks: list[str], texts: int, rng: np.random.Generator) -> pl.DataFrame:
    """Log-likelihoods of so many texts of each benchmark under every model, near those of its base."""
    items = pl.DataFrame({"benchmark": [b for b in benchmarks for _ in range(texts)]})
    items = items.with_columns(item=pl.int_range(pl.len()).cast(pl.String))
    bases = cells["base"].unique().sort().to_list()
    centre = rng.normal(-200, 60, (len(bases), items.height))
    own = centre[[bases.index(base) for base in cells["base"]]] + rng.normal(0, 5, (cells.height, items.height))
    table = cells.join(items, how="cross", maintain_order="left_right")
    table = table.with_columns(log_likelihood=pl.Series(own.reshape(-1)), tokens=pl.lit(50, pl.Int64))
    return table.select(list(tables.schema("likelihoods")))


@threadpool_limits.wrap(limits=1)
def calibration() -> float:
    """CPU seconds of a fixed piece of arithmetic on one thread of this machine."""
    start = time.process_time()
    matrix = np.random.default_rng(0).normal(size=(1000, 1000))
    for _ in range(3):
        np.linalg.svd(matrix, compute_uv=False)
    return time.process_time() - start


def measure(out: Path, texts: int) -> tuple[int, dict[str, tuple[float, float]]]:
    """Write tables and page to a folder; returns the page's bytes and the wall and CPU seconds of each part."""
    plan = plan_study(ROOT / "studies/massive-sft.yaml", ROOT)
    seconds, folder, labels = {}, out / "tables", plan.labels()
    shown = {"name": plan.name, "title": plan.study.title, **labels, "bases": list(plan.study.bases)}
    shown |= {"datasets": list(plan.study.datasets)}
    parts = {
        "invent": lambda: [tables.write(frame, folder, name) for name, frame in invented(plan, texts).items()],
        "audit": lambda: audit(folder, folder, labels),
        "analyse": lambda: analyse(folder, folder, AnalysisOptions(), labels),
        "report": lambda: build(folder, shown, {}, out),
    }
    for name, part in parts.items():
        wall, cpu = time.perf_counter(), time.process_time()
        part()
        seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)
    return (out / "report.html").stat().st_size, seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=150, help="texts of each benchmark")
    parser.add_argument("--out", type=Path, help="keep tables and page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        size, seconds = measure(out, options.texts)
        page = (out / "report.html").read_text(encoding="utf-8")
    unit = calibration()
    print(f"calibration {unit:.2f} CPU s")
    for name, (wall, cpu) in seconds.items():
        print(f"{name:<10}{wall:>6.1f} s wall {cpu:>6.1f} s CPU {cpu / unit:>7.1f} x calibration")
    data = re.search(r'<script type="application/json" id="atlas-data">(.*?)</script>', page, flags=re.S)
    assert data is not None
    figures = {
        figure["name"]: len(json.dumps(figure, separators=(",", ":"))) for figure in json.loads(data[1])["figures"]
    }
    print(f"page {size:,} bytes, of which data {len(data[1]):,}; largest figures:")
    for name, length in sorted(figures.items(), key=lambda pair: -pair[1])[:8]:
        print(f"  {name:<20}{length:>10,}")
    if size >= LIMIT:
        print(f"error: the page has {size:,} bytes; it must have less than {LIMIT:,}", file=sys.stderr)
    return int(size >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
