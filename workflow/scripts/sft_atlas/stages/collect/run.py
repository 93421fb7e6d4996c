"""Gathers the results of every cell into the study's tables; analysis and report read nothing else.

Which columns a table has is said in analyse/tables.py. A result that is not there is a row of the table `missing`.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.files import read_json, write_json

Rows = list[dict[str, Any]]
CURVE_ROWS = 40
"""Rows of table `curves` for one run, at most: what a figure can show, whatever the number of steps."""


def run(spec: dict[str, Any], root: Path) -> None:
    """Write `tables/NAME.parquet` and `.csv` for every input table of the analysis, and the count of their rows."""
    output, identity = root / spec["output"], spec["identity"]
    gathered: dict[str, Rows] = {name: [] for name in tables.INPUTS}
    gathered["missing"] += identity["missing"]
    base_items = _bases(identity, root, gathered)
    for run_cell in identity["runs"]:
        _run(run_cell, identity, root, base_items, gathered)
    _samples(identity, root, gathered)
    built = {name: tables.build(name, rows) for name, rows in gathered.items()}
    built["likelihoods"] = likelihoods(identity, root)
    counts = {}
    for name, table in built.items():
        tables.write(table, output.with_name("tables"), name)
        counts[name] = table.height
    write_json(output, {"rows": counts, "spec": spec["hash"]})


def paired_gain(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any] | None:
    """Mean over shared items of score after minus before, with its standard error sd(d) / sqrt(n); None without any.

    Raises:
        TableError: an item stands twice on one side, so that it could not be told which belongs to which.
    """
    for side, items in (("before", before), ("after", after)):
        twice = items.filter(pl.col("item").is_duplicated())["item"]
        if len(twice):
            raise tables.TableError(
                f"scores {side} training: item {twice[0]!r} stands {(twice == twice[0]).sum()} times, so items cannot "
                "be paired; prepare the benchmark and score it again"
            )
    pairs = before.join(after, on="item", suffix="_after").drop_nulls(["score", "score_after"])
    if not pairs.height:
        return None
    difference = pairs["score_after"] - pairs["score"]
    n = pairs.height
    return {
        "gain": difference.mean(),
        "stderr": float(difference.std()) / n**0.5 if n > 1 else None,  # type: ignore[arg-type]
        "n": n,
        "score": pairs["score_after"].mean(),
        "base_score": pairs["score"].mean(),
    }


def curve(log: pl.DataFrame, epochs: int, rows: int = CURVE_ROWS) -> Rows:
    """A run's log up to an epoch in at most so many rows: means over consecutive steps, as even in number as can be."""
    # a run that was once trained further has more steps than the study asks for
    steps = log.filter(pl.col("epoch") <= epochs + 1e-6).sort("step").fill_nan(None)
    part = pl.int_range(pl.len()) * min(rows, steps.height) // pl.len()
    summed = (
        steps.with_columns(part=part)
        .group_by("part")
        .agg(pl.col("step", "epoch", "learning_rate").last(), pl.col("loss", "grad_norm").mean())
    )
    return summed.sort("part").drop("part").to_dicts()


def cosine(one: list[float] | None, other: list[float] | None) -> float | None:
    """The cosine of two vectors, -1..1; None where one of them is absent or 0."""
    if one is None or other is None:
        return None
    a, b = np.asarray(one), np.asarray(other)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else None


def _bases(identity: dict[str, Any], root: Path, gathered: dict[str, Rows]) -> dict[tuple[str, str, int], pl.DataFrame]:
    """Score rows of the bases; returns their per-item results by (base, benchmark, shots)."""
    items = {}
    for base, paths in identity["bases"].items():
        if paths["scores"] is None:
            gathered["missing"].append({"base": base, "epoch": 0, "reason": "not evaluated"})
            continue
        if paths["likelihoods"]:
            gathered["dimensions"] += [{"base": base, **row} for row in _layers(root / paths["likelihoods"])]
        path = root / paths["scores"]
        scores = pl.read_parquet(path)
        gathered["missing"] += _not_scored(scores, {"base": base})
        for row in scores.iter_rows(named=True):
            items[base, row["benchmark"], row["shots"]] = pl.read_parquet(path.parent / row.pop("items"))
            gathered["scores"].append({"base": base, **row})
    return items


def _run(
    cell: dict[str, Any],
    identity: dict[str, Any],
    root: Path,
    base_items: dict[tuple[str, str, int], pl.DataFrame],
    gathered: dict[str, Rows],
) -> None:
    key = {name: cell[name] for name in ("base", "sample", "recipe", "seed")}
    train = read_json(root / cell["train"]) if cell["train"] else None
    described = {name: cell[name] for name in ("dataset", "held_out", "method", "schedule")}
    if train is not None:
        described["size"] = read_json(root / cell["tokens"])["rows"]
        gathered["training"].append(
            {
                **key,
                "run": cell["run"],
                "epochs": max(map(int, train["epochs"])),
                "steps": train["steps"],
                "tokens": train["trained_tokens"],
                "final_loss": train["final_loss"],
                "method": cell["method"],
            }
        )
        log = (root / cell["train"]).with_name("log.parquet")
        if log.exists():
            last = max(map(int, cell["epochs"]))
            about = {**key, **described, "block": cell["epochs"][str(last)]}
            gathered["curves"] += [about | row for row in curve(pl.read_parquet(log), last)]
    reasons = {"train": "not trained", "scores": "not evaluated", "weights": "not measured"}
    reasons |= {"likelihoods": "likelihoods not measured"} if identity["likelihoods"] else {}
    for stage, reason in reasons.items():
        if cell[stage] is None:
            gathered["missing"] += [{**key, "epoch": int(epoch), "reason": reason} for epoch in cell["epochs"]]
            break
    if cell["weights"]:
        for row in pl.read_parquet(root / cell["weights"]).iter_rows(named=True):
            gathered["layers"].append({**key, **row, **described, "block": cell["epochs"][str(row["epoch"])]})
    if cell["likelihoods"]:
        for row in _layers(root / cell["likelihoods"]):
            row |= {**described, "block": cell["epochs"][str(row["epoch"])]}
            gathered["dimensions"].append({**key, **row})
    if not cell["scores"]:
        return
    path = root / cell["scores"]
    scores = pl.read_parquet(path)
    gathered["missing"] += _not_scored(scores, key)
    for row in scores.iter_rows(named=True):
        items = path.parent / row.pop("items")
        row |= {**described, "block": cell["epochs"][str(row["epoch"])]}
        gathered["scores"].append({**key, **row})
        before = base_items.get((cell["base"], row["benchmark"], row["shots"]))
        gain = None if before is None else paired_gain(before, pl.read_parquet(items))
        if gain:
            matched = cell["dataset"] in identity["matches"][row["benchmark"]]
            gathered["gains"].append({**key, **row, **gain, "matched": matched})


def _not_scored(scores: pl.DataFrame, key: dict[str, Any]) -> Rows:
    """Benchmarks whose answers are kept, but would need a judge, or to be run, for a score."""
    unknown = scores.filter(pl.col("score").is_null()).select("epoch", "benchmark").unique(maintain_order=True)
    return [{**key, **row, "reason": "generated, not scored"} for row in unknown.iter_rows(named=True)]


def _layers(path: Path) -> Iterator[dict[str, Any]]:
    """Intrinsic dimensions by epoch and layer from a table of stage likelihoods."""
    for epoch, layers in pl.read_parquet(path).select("epoch", "layers").iter_rows():
        for row in pl.read_parquet(path.parent / layers).iter_rows(named=True):
            yield {"epoch": epoch, **row}


def likelihoods(identity: dict[str, Any], root: Path) -> pl.DataFrame:
    """Table `likelihoods`: as frames, since it may have millions of rows."""
    parts = [tables.empty("likelihoods")]
    cells: Rows = [{"base": base, **paths} for base, paths in identity["bases"].items()]
    for cell in [*cells, *identity["runs"]]:
        if not cell["likelihoods"]:
            continue
        path = root / cell["likelihoods"]
        for epoch, vector in pl.read_parquet(path).select("epoch", "vector").iter_rows():
            key = {name: cell.get(name) for name in ("base", "sample", "recipe", "seed")} | {"epoch": epoch}
            named = pl.read_parquet(path.parent / vector).with_columns(
                pl.col("benchmark").replace_strict(identity["benchmarks"], return_dtype=pl.String),
                *(pl.lit(value, tables.schema("likelihoods")[name]).alias(name) for name, value in key.items()),
            )
            parts.append(named.select(list(tables.schema("likelihoods"))))
    return tables.arrange(tables.check(pl.concat(parts), "likelihoods"), "likelihoods")


def _left_out(facts: dict[str, Any]) -> dict[str, Any]:
    """How many rows were left out and why, and what rows were used without; earlier versions did not say."""
    found = {}
    for name in ("left_out", "shortened"):
        reasons = facts.get(name)
        found[name] = None if reasons is None else sum(reasons.values())
        said = "" if reasons is None else ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        found[f"{name}_by_reason"] = said or None
    return found


def _samples(identity: dict[str, Any], root: Path, gathered: dict[str, Rows]) -> None:
    """Rows of `samples` and `predictors`, of every base with every sample it is trained on."""

    @lru_cache
    def similarity(path: str | None) -> dict[str, float | None]:
        return dict(pl.read_parquet(root / path).select("benchmark", "similarity").iter_rows()) if path else {}

    @lru_cache
    def item_counts(path: str | None) -> dict[str, int]:
        return dict(pl.read_parquet(root / path).select("benchmark", "items").iter_rows()) if path else {}

    @lru_cache
    def embedded(kind: str, name: str) -> list[float] | None:
        path = identity["embeddings"][kind].get(name)
        return pl.read_parquet(root / path)["mean"].to_list()[0] if path else None

    for sample, path in identity["contamination"].items():
        if path:
            counted = pl.read_parquet(root / path).group_by("benchmark").agg(pl.col("item").n_unique())
            held = dict(counted.iter_rows())
            gathered["contamination"] += [
                {"sample": sample, "benchmark": name, "items": items, "found": held.get(name, 0)}
                | {"share": held.get(name, 0) / items}
                for name, items in item_counts(identity["similarity"][sample]).items()
            ]
    for base, samples in identity["tokens"].items():
        measured = identity["bases"][base]["perplexity"]
        rows = pl.read_parquet(root / measured).iter_rows(named=True) if measured else []
        perplexity = {row.pop("tokens"): row for row in rows}
        for sample, path in samples.items():
            if path is None:
                continue
            facts = read_json(root / path)
            lengths = {
                "mean_tokens": facts["tokens"] / facts["rows"],
                "mean_completion_tokens": facts["trained_tokens"] / facts["rows"],
            }
            counts = {name: facts[name] for name in ("rows", "tokens", "trained_tokens", "truncated")}
            counts |= _left_out(facts)
            gathered["samples"].append({"base": base, "sample": sample, **counts, **lengths})
            found = perplexity.get(Path(path).parent.name.rpartition("-")[2], {})
            values = {name: found.get(name) for name in found if name.startswith("perplexity")}
            overlap = similarity(identity["similarity"][sample])
            gathered["predictors"] += [
                {
                    "base": base,
                    "sample": sample,
                    "benchmark": benchmark,
                    **values,
                    **lengths,
                    "similarity": overlap.get(benchmark),
                    "embedding_similarity": cosine(embedded("sample", sample), embedded("benchmark", benchmark)),
                    "dataset": identity["samples"][sample],
                    "size": facts["rows"],
                }
                for benchmark in identity["matches"]
            ]
