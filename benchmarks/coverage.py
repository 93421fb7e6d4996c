"""Do the intervals of the tables cover what they should? The whole path, simulated: items, tables, the analysis.

    python benchmarks/coverage.py [--draws N] [--processes N] [--size micro|published] [--mix NAME] [--write]

Each draw invents a study: bases and datasets with effects of their own, items that all models answer, answers that are
right or wrong, and from these the tables as collect writes them; the shipped `analyse` does the rest. Counted is how
often an interval holds the truth: the planted value where there is one (gains, contrasts, single cells, the gain that a
recommendation foretells, the depth of a peak), else the mean of the estimate over all draws of such a study (shares,
correlations, skill). Variance lies mostly with datasets, with bases, with base x dataset, or with neither. Printed are
the shares by table, scope and mix, in percent; `--write` puts them where the report shows them. Likelihoods are left
out, since their t-SNE would take longer than all else. The first draws of a run are those of a shorter one.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.study.analyses import AnalysisOptions

WRITTEN = Path(tables.__file__).with_name("coverage.csv")
OPTIONS = AnalysisOptions(bootstrap_draws=200, permutations=100)
SIZES = {"micro": (4, 6), "published": (12, 10)}
MIXES = {
    "datasets": (0.02, 0.06, 0.02, 0.02),
    "bases": (0.06, 0.02, 0.02, 0.02),
    "interaction": (0.02, 0.02, 0.06, 0.02),
    "rest": (0.02, 0.02, 0.02, 0.06),
}
"""Where gain varies most. Standard deviations that go with bases, datasets, base x dataset, and single cells."""
BENCHMARKS = ("code", "math", "mmlu", "cmmlu")
RUNS = (("full", 300, 0), ("full", 300, 1), ("lora", 300, 0), ("full", 1000, 0))
EPOCHS = {1: 0.6, 2: 1.0}
ITEMS, LAYERS, ALIKE, SEED_NOISE = 150, 5, 0.5, 0.01
MATCHED, LORA, LARGE, SLOPE, PEAK, PARTED = 0.10, -0.02, 0.02, -0.03, 0.5, 1.0
LEAST = 0.93


@dataclass(frozen=True)
class Truth:
    """What was planted; arrays are indexed by base, dataset, benchmark and run, as far as they hang on these."""

    of_dataset: np.ndarray
    ways_of_base: dict[str, np.ndarray]
    ways_of_dataset: dict[str, np.ndarray]
    gain: np.ndarray


@lru_cache
def names(size: str) -> tuple[list[str], list[str]]:
    """Bases and datasets of a study."""
    return [f"base{i:02d}" for i in range(SIZES[size][0])], [f"data{i:02d}" for i in range(SIZES[size][1])]


@lru_cache
def skeleton(size: str) -> dict[str, pl.DataFrame]:
    """Keys and descriptions of the tables' rows, which no draw changes, in the order of the drawn arrays."""
    bases, datasets = names(size)
    measures = [{"benchmark": name, "shots": 0, "metric": "exact_match"} for name in BENCHMARKS]
    cells, layers, single = [], [], []
    for base, dataset, (method, rows, seed) in product(bases, datasets, RUNS):
        run = {"base": base, "sample": f"{dataset}-{rows}", "recipe": method, "seed": seed}
        about = {"dataset": dataset, "size": rows, "method": method, "schedule": "linear", "block": "all"}
        depths = [{"layer": i, "depth": i / (LAYERS - 1)} for i in range(LAYERS)]
        layers += [run | {"epoch": max(EPOCHS)} | depth | about for depth in depths]
        cells += [run | {"epoch": epoch} | measure | about for epoch in EPOCHS for measure in measures]
    for base, dataset, rows, benchmark in product(bases, datasets, (300, 1000), BENCHMARKS):
        single.append(
            {"base": base, "sample": f"{dataset}-{rows}", "benchmark": benchmark, "dataset": dataset, "size": rows}
        )
    own = [{"base": base, "epoch": 0} | measure for base in bases for measure in measures]
    before = [
        {"base": base, "epoch": 0, "layer": i, "depth": i / (LAYERS - 1)} for base in bases for i in range(LAYERS)
    ]
    parts = {"cells": cells, "layers": layers, "predictors": single, "bases": own, "before": before}
    schema = {c.name: c.dtype for table in tables.INPUTS.values() for c in table.columns}
    return {name: pl.DataFrame(part, schema_overrides={c: schema[c] for c in part[0]}) for name, part in parts.items()}


def draw(size: str, mix: str, seed: int) -> tuple[dict[str, pl.DataFrame], Truth]:
    """The input tables of one invented study, and the truth behind them."""
    rng = np.random.default_rng([seed, list(SIZES).index(size), list(MIXES).index(mix)])
    b, d, k = *SIZES[size], len(BENCHMARKS)

    def effects(width: int, factor: float = 1.0) -> list[np.ndarray]:
        """Effects of bases, datasets, and both, alike or not on each of `width` benchmarks."""
        shapes = ((b, 1, width), (1, d, width), (b, d, width))
        return [rng.normal(0, factor * sd, shape) for sd, shape in zip(MIXES[mix], shapes, strict=False)]

    # half of the variance is common to all benchmarks
    common, single = effects(1, 0.5**0.5), effects(k, 0.5**0.5)
    ways = {"lora": effects(1, 0.3), "large": effects(1, 0.3)}
    shift = {"lora": LORA + sum(ways["lora"]), "large": LARGE + sum(ways["large"])}
    matched = MATCHED * (np.arange(k)[None] == np.arange(d)[:, None])
    of_data = rng.normal(0, 0.5, d)
    level = 2 + of_data + rng.normal(0, 0.3, (b, 1)) + rng.normal(0, 0.3, (b, d))
    cell = rng.normal(0, MIXES[mix][3], (b, d, k))
    mean = SLOPE * (level - 2)[..., None] + sum(common) + sum(single) + matched + cell
    trained = [
        mean
        + (shift["lora"] if method == "lora" else 0)
        + (shift["large"] if rows == 1000 else 0)
        + rng.normal(0, SEED_NOISE, (b, d, k))
        for method, rows, _ in RUNS
    ]
    frames, gain = scored(rng, size, np.stack(trained, axis=-1))
    inside = layers_and_dimensions(rng, size, gain, MIXES[mix])
    frames |= inside | {"predictors": properties(rng, size, level, matched)}
    truth = Truth(
        (SLOPE * of_data[:, None] + common[1][0] + single[1][0] + matched),
        {name: part[0][:, 0, 0] for name, part in ways.items()},
        {name: part[1][0, :, 0] for name, part in ways.items()},
        gain,
    )
    return frames, truth


def scored(rng: np.random.Generator, size: str, trained: np.ndarray) -> tuple[dict[str, pl.DataFrame], np.ndarray]:
    """Tables `scores` and `gains` from answers to items; and the gains that infinitely many items would show.

    All models answer the same items; an item's difficulty is half of what decides an answer. The sums are those of
    collect.paired_gain (a test compares them).
    """
    b, _, k, _ = trained.shape
    start = rng.uniform(0.35, 0.5, (b, k))
    shares = np.array(list(EPOCHS.values()))[:, None]
    chance = np.clip(start[:, None, None, None] + shares * trained.transpose(0, 1, 3, 2)[..., None, :], 0.02, 0.98)
    difficulty = ALIKE**0.5 * rng.standard_normal((k, ITEMS), dtype=np.float32)

    def answers(p: np.ndarray) -> np.ndarray:
        noise = (1 - ALIKE) ** 0.5 * rng.standard_normal((*p.shape, ITEMS), dtype=np.float32)
        return (difficulty + noise < ndtri(p)[..., None]).astype(np.float32)

    before, after = answers(start), answers(chance)
    step = after - before[:, None, None, None]
    gain, stderr = step.mean(axis=-1, dtype=float), step.std(axis=-1, ddof=1, dtype=float) / ITEMS**0.5
    score, error = after.mean(axis=-1, dtype=float), after.std(axis=-1, ddof=1, dtype=float) / ITEMS**0.5
    n, rows = pl.lit(ITEMS, pl.Int64).alias("n"), skeleton(size)
    own = np.broadcast_to(before.mean(axis=-1, dtype=float)[:, None, None, None], score.shape)
    cells = rows["cells"].with_columns(score=score.ravel(), stderr=error.ravel(), n=n)
    taught = pl.col("dataset").str.slice(4).cast(pl.Int64)
    tested = pl.col("benchmark").replace_strict({name: i for i, name in enumerate(BENCHMARKS)}, return_dtype=pl.Int64)
    gains = cells.with_columns(
        gain=gain.ravel(), stderr=stderr.ravel(), base_score=own.ravel(), matched=taught == tested
    )
    bases = rows["bases"].with_columns(
        score=before.mean(axis=-1, dtype=float).ravel(),
        stderr=(before.std(axis=-1, ddof=1, dtype=float) / ITEMS**0.5).ravel(),
        n=n,
    )
    frames = {"scores": pl.concat([bases, cells], how="diagonal"), "gains": gains}
    return frames, (chance - start[:, None, None, None])[..., -1, :].transpose(0, 1, 3, 2)


def layers_and_dimensions(
    rng: np.random.Generator, size: str, gain: np.ndarray, sd: tuple[float, ...]
) -> dict[str, pl.DataFrame]:
    """Tables `layers` and `dimensions`: change that follows the gain at depth PEAK, dimension that parts by PARTED."""
    b, d, _, r = gain.shape
    depth = np.linspace(0, 1, LAYERS)
    follow = 8 * gain.mean(axis=2)[..., None] * np.exp(-(((depth - PEAK) / 0.2) ** 2))
    size_of = 0.02 * np.exp(follow + rng.normal(0, 0.2, (b, d, r, LAYERS)))
    norm = np.broadcast_to(rng.uniform(10, 20, (b, 1, 1, LAYERS)), size_of.shape)
    rows = skeleton(size)
    layers = rows["layers"].with_columns(
        module=pl.lit("all"), relative=size_of.ravel(), base_norm=norm.ravel(), norm=(size_of * norm).ravel()
    )
    layers = layers.with_columns(cosine_distance=pl.col("relative") ** 2 / 2)
    before = rng.uniform(8, 12, (b, LAYERS))
    own = [rng.normal(0, 10 * s, shape) for s, shape in zip(sd, ((b, 1, 1), (1, d, 1), (b, d, 1)), strict=False)]
    parted = sum(own)[..., None] + PARTED * (depth > PEAK) + rng.normal(0, 10 * sd[3], (b, d, r, LAYERS))
    facts = {"stderr": pl.lit(0.3), "texts": pl.lit(30, pl.Int64)}
    after = rows["layers"].with_columns(dimension=(before[:, None, None] + parted).ravel(), **facts)
    start = rows["before"].with_columns(dimension=before.ravel(), **facts)
    return {"layers": layers, "dimensions": pl.concat([start, after], how="diagonal")}


def properties(rng: np.random.Generator, size: str, level: np.ndarray, matched: np.ndarray) -> pl.DataFrame:
    """Table `predictors`."""
    d, k = matched.shape
    full = (len(level), d, 2, k)
    perplexity = np.broadcast_to(np.exp(level)[:, :, None, None], full).ravel()
    tokens = np.broadcast_to(rng.uniform(40, 400, d)[None, :, None, None], full).ravel()
    similar = np.broadcast_to((rng.uniform(0, 0.3, (d, k)) + matched)[None, :, None], full).ravel()
    unknown = pl.lit(None, pl.Float64)
    return skeleton(size)["predictors"].with_columns(
        perplexity=perplexity, perplexity_full=1.5 * perplexity, mean_tokens=tokens, mean_completion_tokens=tokens / 2,
        similarity=similar, perplexity_stderr=unknown, perplexity_full_stderr=unknown, embedding_similarity=unknown,
    )  # fmt: skip


def labels(size: str) -> dict[str, Any]:
    """Families of two, two languages, what trains what, a counterpart, and a search over the recipes."""
    bases, datasets = names(size)
    recipe = {"learning_rate": 1e-5, "schedule": "linear", "warmup_steps": 0, "batch_size": 16, "weight_decay": 0.0}
    recipe |= {"max_gradient_norm": 1.0, "max_length": 128, "precision": "fp32", "optimizer": "adamw"}
    recipe |= {"batching": "shuffled", "lora_rank": None, "lora_alpha": None}
    searched = {"benchmarks": list(BENCHMARKS), "by": ["base", "sample", "method"]}
    about = {base: {"family": f"f{i // 2}", "language": "en" if i % 2 else "zh"} for i, base in enumerate(bases)}
    tested = {name: {"matches": [dataset]} for name, dataset in zip(BENCHMARKS, datasets, strict=False)}
    tested["cmmlu"] |= {"translation_of": "mmlu"}
    search = {"options": searched, "recipes": {"full": recipe, "lora": recipe}}
    # at the greater size a search of every sample takes as long as all the rest
    return {"bases": about, "benchmarks": tested} | ({"selection": search} if size == "micro" else {})


ESTIMATES = {
    **dict.fromkeys(("agreement", "benchmarks", "correlations", "crosslingual"), "coefficient"),
    **dict.fromkeys(("layer_correlations", "partials", "similarity"), "coefficient"),
    **{"claims": "number", "contrasts": "difference", "dimension_changes": "difference", "effects": "gain"},
    **{"epochs": "gain", "layer_peaks": "depth", "pca": "cumulative", "prediction": "skill"},
    **{"recommend": "predicted", "seeds": "sd", "selection": "value", "variance": "share"},
}
"""Each table with intervals and the column that they are of. Those of `sensitivity` are those of `effects`."""
SCOPES = {
    "claims": pl.col("claim"),
    "correlations": pl.col("scope"),
    "crosslingual": pl.col("scope"),
    "effects": pl.col("scope"),
    "layer_correlations": pl.col("scope"),
    "pca": pl.col("scope"),
    "seeds": pl.col("scope"),
    "similarity": pl.col("scope"),
    "variance": pl.col("factor"),
    "contrasts": pl.col("family"),
}


def intervals(folder: Path, truth: Truth, size: str) -> pl.DataFrame:
    """Every interval in a folder's tables: table, scope, key, estimate, ends, and the truth where it is planted."""
    parts = []
    for table, column in ESTIMATES.items():
        frame = tables.read(folder, table)
        key = pl.concat_str(*(pl.col(c).cast(pl.String).fill_null("") for c in tables.TABLES[table].key), separator="|")
        frame = frame.filter(pl.col("ci_low").is_not_null() & pl.col("ci_high").is_not_null())
        planted = _planted(frame, table, truth, size)
        parts.append(
            frame.select(
                table=pl.lit(table),
                scope=SCOPES.get(table, pl.lit("")),
                key=key,
                estimate=pl.col(column),
                low="ci_low",
                high="ci_high",
            ).with_columns(truth=pl.Series(planted, dtype=pl.Float64))
        )
    return pl.concat(parts)


def _planted(frame: pl.DataFrame, table: str, truth: Truth, size: str) -> list[float | None]:
    """The planted value of each row of a table; None where the mean of the estimate must do."""
    find = {"recommend": _of_recommendation, "layer_peaks": lambda *_: PEAK, "effects": _of_effect}
    find |= {"contrasts": _of_contrast, "epochs": _of_epoch, "selection": _of_choice}
    find |= {"dimension_changes": lambda row, *_: PARTED * (row["depth"] > PEAK)}
    if table not in find:
        claims = {"peak depth": PEAK, "code for maths": _of_code(truth)}
        return [claims.get(row.get("claim", "")) for row in frame.iter_rows(named=True)]
    return [find[table](row, truth, size) for row in frame.iter_rows(named=True)]


def _at(row: dict[str, Any], size: str) -> tuple[int, int, int]:
    """Places of a row's base, dataset and benchmark."""
    bases, datasets = names(size)
    return tuple(
        where.index(row[name]) if row.get(name) else -1
        for name, where in (("base", bases), ("dataset", datasets), ("benchmark", list(BENCHMARKS)))
    )  # type: ignore[return-value]


def _settings(method: str | None, rows: int | None) -> list[tuple[str, int]]:
    """Method and size of the settings that a row is over."""
    every = dict.fromkeys((m, r) for m, r, _ in RUNS)
    return [s for s in every if (method in (None, s[0])) and (rows in (None, s[1]))]


def _way(setting: tuple[str, int], lora: float, large: float) -> float:
    return lora * (setting[0] == "lora") + large * (setting[1] == 1000)


def _of_code(truth: Truth) -> float:
    """What the dataset of code adds to maths beyond those that train neither."""
    maths = truth.of_dataset[:, BENCHMARKS.index("math")]
    return float(maths[0] - maths[2:].mean())


def _of_recommendation(row: dict[str, Any], truth: Truth, size: str) -> float | None:
    return row["observed"]


def _of_effect(row: dict[str, Any], truth: Truth, size: str) -> float:
    base, dataset, benchmark = _at(row, size)
    settings = _settings(row["method"], row["size"])
    if row["scope"] == "cell":
        runs = [i for i, (m, r, _) in enumerate(RUNS) if (m, r) == settings[0]]
        return float(truth.gain[base, dataset, benchmark, runs].mean())
    if row["scope"] == "mean":
        ways = truth.ways_of_dataset
        lora, large = LORA + ways["lora"][dataset], LARGE + ways["large"][dataset]
        return float(truth.of_dataset[dataset, benchmark] + _way(settings[0], lora, large))
    shift = float(np.mean([_way(setting, LORA, LARGE) for setting in settings]))
    return {"matched": MATCHED + shift, "unmatched": shift, "difference": MATCHED}[row["scope"]]


def _of_contrast(row: dict[str, Any], truth: Truth, size: str) -> float:
    name, mean = ("lora", LORA) if row["factor"] == "method" else ("large", LARGE)
    return mean + (float(truth.ways_of_base[name][_at(row, size)[0]]) if row["base"] else 0.0)


def _of_epoch(row: dict[str, Any], truth: Truth, size: str) -> float:
    share = EPOCHS[row["epoch"]]
    fit = MATCHED / SIZES[size][1]
    return share * (fit + _way((row["method"], row["size"]), LORA, LARGE))


def _of_choice(row: dict[str, Any], truth: Truth, size: str) -> float:
    rows = int(row["sample"].rpartition("-")[2])
    at = _at(row | {"dataset": row["sample"].rpartition("-")[0]}, size)
    runs = [i for i, run in enumerate(RUNS) if run[:2] == (row["method"], rows)]
    return EPOCHS[row["epoch"]] * float(truth.gain[at[0], at[1]][:, runs].mean())


def one(task: tuple[str, str, int]) -> pl.DataFrame:
    """The intervals of one draw."""
    size, mix, seed = task
    frames, truth = draw(size, mix, seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None) as temporary:
        folder = Path(temporary)
        for name, frame in frames.items():
            full = pl.concat([tables.empty(name), frame], how="diagonal").select(list(tables.schema(name)))
            full.write_parquet(folder / f"{name}.parquet")
        analyse(folder, folder, OPTIONS, labels(size))
        return intervals(folder, truth, size).with_columns(size=pl.lit(size), mix=pl.lit(mix))


def shares(found: pl.DataFrame) -> pl.DataFrame:
    """Share of intervals that hold the truth, by table, scope, size and mix; `rows` is how many were counted."""
    where = ["size", "mix", "table", "scope"]
    truth = pl.col("truth").fill_null(pl.col("estimate").mean().over(*where, "key"))
    held = (pl.col("low") <= truth + 1e-12) & (truth - 1e-12 <= pl.col("high"))
    return (
        found.group_by(where)
        .agg(held.mean().alias("share"), pl.len().alias("rows"))
        .sort("table", "scope", "size", "mix")
    )


def simulate(sizes: list[str], mixes: list[str], draws: int, processes: int) -> pl.DataFrame:
    """Shares over so many draws of each size and mix."""
    parts = []
    for mix, size in product(mixes, sizes):
        tasks = [(size, mix, seed) for seed in range(draws)]
        if processes == 1:
            found = [one(task) for task in tasks]
        else:
            with ProcessPoolExecutor(processes) as pool:
                found = list(pool.map(one, tasks, chunksize=8))
        parts.append(shares(pl.concat(found)))
        print(f"{show(parts[-1])}\n{draws} draws", file=sys.stderr, flush=True)
    return pl.concat(parts).sort("table", "scope", "size", "mix")


def show(found: pl.DataFrame) -> str:
    """The shares in percent, a line per table and scope."""
    columns = list(dict.fromkeys(zip(found["size"], found["mix"], strict=True)))
    cells = {(r["table"], r["scope"], r["size"], r["mix"]): r["share"] for r in found.iter_rows(named=True)}
    lines = [" " * 46 + " ".join(f"{size[:5]}/{mix[:6]:<6}" for size, mix in columns)]
    for table, scope in dict.fromkeys(zip(found["table"], found["scope"], strict=True)):
        values = [cells.get((table, scope, *column)) for column in columns]
        lines.append(
            f"{table:<19}{scope:<26} " + " ".join(f"{'–' if v is None else f'{100 * v:.1f}':>12}" for v in values)
        )
    return "\n".join(lines)


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--mix", choices=MIXES, action="append")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name}, which the report shows")
    options = parser.parse_args()
    found = simulate(options.size or list(SIZES), options.mix or list(MIXES), options.draws, options.processes)
    print(show(found))
    if options.write:
        found.with_columns(pl.col("share").round(4), draws=pl.lit(options.draws)).write_csv(WRITTEN)
    low = found.filter(pl.col("share") < LEAST)
    for row in low.iter_rows(named=True):
        print(f"below {LEAST:.0%}: {row['table']} {row['scope']}, {row['size']}, {row['mix']}: {row['share']:.3f}")
    return int(low.height > 0)


if __name__ == "__main__":
    sys.exit(main())
