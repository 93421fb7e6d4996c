"""Figures of question 2: properties of the training data against the gain."""

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from sft_atlas.analysis.statistics import Array, within
from sft_atlas.report import style, text
from sft_atlas.report.results import Results

Flags = np.ndarray[Any, np.dtype[np.bool_]]

MIN_BASES = 3
"""A line through fewer points would show the points, not a trend."""


def perplexity(results: Results) -> Figure | None:
    """Perplexity of the data under the base model against gain, over all benchmarks and over matched ones."""
    cells = _with_perplexity(results)
    if cells.is_empty():
        return None
    panels = {"All benchmarks": cells, "Benchmarks that test what the data trains": cells.filter("matched")}
    panels = {title: part for title, part in panels.items() if not part.is_empty()}
    drawing = style.figure(5.2 * len(panels) + 0.6, 5.0)
    grid = drawing.subplots(1, len(panels), squeeze=False)
    bases = [base for base in results.bases if base in set(cells["base"])]
    datasets = [name for name in results.datasets if name in set(cells["dataset"])]
    for axes, (title, part) in zip(grid.flat, panels.items(), strict=True):
        _scatter(axes, part, bases, datasets, faint=title == "All benchmarks")
        axes.set_title(title)
        axes.set_xlabel("perplexity of completions under the base model (log scale)")
    inside = results.correlation("log_perplexity", "within_dataset")
    if inside is not None:
        ends = text.interval(inside["ci_low"], inside["ci_high"])
        note = f"between bases, on one dataset:\nρ = {text.number(inside['coefficient'])} {ends}"
        grid.flat[0].text(0.98, 0.97, note, transform=grid.flat[0].transAxes, ha="right", va="top", color=style.SOFT)
    grid.flat[0].set_ylabel("gain over the base model (points)")
    handles = [Line2D([], [], color=style.colour(bases, b), marker="o", linestyle="", label=b) for b in bases]
    handles += [
        Line2D([], [], color=style.SOFT, marker=style.marker(datasets, d), linestyle="", label=d) for d in datasets
    ]
    drawing.legend(handles=handles, loc="outside lower center", ncols=7, handletextpad=0.2, columnspacing=1.2)
    return drawing


def _with_perplexity(results: Results) -> pl.DataFrame:
    """Gain and perplexity per base x dataset x measure, averaged over sizes, recipes and seeds as the analysis does."""
    data = results["predictors"].select("base", "sample", "benchmark", "perplexity").drop_nulls()
    joined = results.runs.join(data, on=["base", "sample", "benchmark"], how="inner")
    return (
        joined.group_by("base", "dataset", "benchmark", "shots", "metric")
        .agg(pl.col("gain").mean() * 100, pl.col("perplexity").log().mean().exp(), pl.col("matched").any())
        .sort("base", "dataset", "benchmark", "shots", "metric")
    )


def _scatter(axes: Axes, cells: pl.DataFrame, bases: list[str], datasets: list[str], faint: bool) -> None:
    """One point per base x dataset, a line per dataset; `faint` adds the cells behind the points."""
    if faint:
        for base in bases:
            part = cells.filter(pl.col("base") == base)
            axes.scatter(
                part["perplexity"], part["gain"], s=5, color=style.colour(bases, base), alpha=0.18, linewidth=0
            )
    means = cells.group_by("base", "dataset").agg(pl.col("gain", "perplexity").mean()).sort("base", "dataset")
    for dataset in datasets:
        part = means.filter(pl.col("dataset") == dataset)
        x, y = part["perplexity"].log().to_numpy(), part["gain"].to_numpy()
        if part.height >= MIN_BASES and np.ptp(x) > 0:
            ends = np.array([x.min(), x.max()])
            slope, start = np.polyfit(x, y, 1)
            axes.plot(np.exp(ends), start + slope * ends, color=style.SOFT, linewidth=1, alpha=0.7, zorder=1)
    for row in means.iter_rows(named=True):
        axes.plot(
            row["perplexity"],
            row["gain"],
            style.marker(datasets, row["dataset"]),
            color=style.colour(bases, row["base"]),
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.8,
        )
    style.zero_line(axes)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = means["perplexity"].to_numpy().min(), means["perplexity"].to_numpy().max()
    if high < 100 * low:
        axes.set_xticks(_round_ticks(low, high))
    axes.grid(axis="y")


def _round_ticks(low: float, high: float) -> list[float]:
    """Readable ticks on a log axis of narrow range: 1, 1.5, 2, 3, 5 and 7 times powers of ten."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [t for p in powers for t in (step * 10.0**p for step in (1, 1.5, 2, 3, 5, 7)) if low <= t <= high]


def explain_perplexity(results: Results) -> str:
    """What the correlations with perplexity say, within datasets first."""
    parts = []
    for scope in ("within_dataset", "within_base", "pooled"):
        row = results.correlation("log_perplexity", scope)
        if row is not None:
            parts.append(f"{text.SCOPES[scope]}: {text.relation(row, 'perplexity')} ({text.correlation(row)})")
    return text.sentence("; ".join(parts)) if parts else text.sentence("too few runs to correlate perplexity with gain")


def predictors(results: Results) -> Figure | None:
    """All correlations over all benchmarks, with their intervals."""
    rows = [
        (predictor, scope, row)
        for predictor in text.PREDICTORS
        for scope in text.SCOPES
        if (row := results.correlation(predictor, scope)) is not None
    ]
    if not rows:
        return None
    drawing = style.figure(9.5, 1.0 + 0.34 * len(rows))
    axes = drawing.subplots()
    for i, (_, _, row) in enumerate(rows):
        ink = style.COLOURS[0] if text.is_clear(row) else style.SOFT
        if row["ci_low"] is not None and row["ci_high"] is not None:
            axes.plot([row["ci_low"], row["ci_high"]], [i, i], color=ink, linewidth=2.2, solid_capstyle="round")
        axes.plot(row["coefficient"], i, "o", color=ink, markersize=6.5, markeredgecolor="white")
        note = f"q {text.probability(row['q'])}, {text.count(row['n_clusters'], UNITS[row['scope']])}"
        axes.text(1.04, i, note, va="center", fontsize=8, color=style.SOFT)
    axes.set_yticks(range(len(rows)), [f"{text.PREDICTORS[p]}\n{text.SCOPES[s]}" for p, s, _ in rows], fontsize=8)
    axes.set(xlim=(-1, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="rank correlation with gain, with interval")
    style.zero_line(axes, horizontal=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return drawing


UNITS = {"pooled": "dataset", "within_base": "dataset", "within_dataset": "base", "within_run": "benchmark"}
"""What a correlation's interval leaves out, one by one."""


def explain_predictors(results: Results) -> str:
    """Which properties go with gain clearly, and which do not."""
    clear: list[str] = []
    unclear: list[str] = []
    for predictor, name in text.PREDICTORS.items():
        rows = [row for scope in text.SCOPES if (row := results.correlation(predictor, scope)) is not None]
        if not rows:
            continue
        best = max(rows, key=lambda row: (text.is_clear(row), abs(row["coefficient"])))
        said = f"{name} (strongest {text.SCOPES[best['scope']]}: {text.correlation(best)})"
        (clear if text.is_clear(best) else unclear).append(said)
    parts = [f"clearly related to gain: {'; '.join(clear)}"] if clear else ["no property is clearly related to gain"]
    parts += [f"no clear relation for {'; '.join(unclear)}"] if unclear else []
    return ". ".join(text.sentence(part).rstrip(".") for part in parts) + "."


def similarity(results: Results) -> Figure | None:
    """Similarity of data and benchmark against the gain, both relative to the other benchmarks of the run."""
    data = results["predictors"].select("base", "sample", "benchmark", "similarity").drop_nulls()
    cells = results.runs.join(data, on=["base", "sample", "benchmark"], how="inner")
    if cells.is_empty():
        return None
    cells = cells.group_by("base", "dataset", "benchmark", "shots", "metric").agg(
        pl.col("gain").mean() * 100, pl.col("similarity").mean(), pl.col("matched").any()
    )
    cells = cells.sort("base", "dataset", "benchmark", "shots", "metric")
    strata = np.array([f"{base}\n{dataset}" for base, dataset in cells.select("base", "dataset").iter_rows()])
    x, y = (within(cells[name].to_numpy(), strata) for name in ("similarity", "gain"))
    drawing = style.figure(7.0, 4.4)
    axes = drawing.subplots()
    _matched_points(axes, x, y, cells["matched"].to_numpy())
    style.zero_line(axes)
    axes.axvline(0, color=style.SOFT, linewidth=0.8, zorder=0)
    axes.set_xlabel("similarity of data and benchmark, minus the run's mean")
    axes.set_ylabel("gain, minus the run's mean (points)")
    drawing.legend(loc="outside upper left", ncols=2)
    return drawing


def _matched_points(axes: Axes, x: Array, y: Array, matched: Flags) -> None:
    """Cells, the matched ones emphasised."""
    axes.scatter(x[~matched], y[~matched], s=9, color=style.SOFT, alpha=0.45, linewidth=0, label="other cells")
    axes.scatter(
        x[matched], y[matched], s=34, color=style.COLOURS[0], edgecolor="white", label="data trains what is tested"
    )


def explain_similarity(results: Results) -> str:
    """What the correlations with similarity say."""
    parts = []
    for predictor, name in {"similarity": "similarity", "embedding_similarity": "similarity in meaning"}.items():
        for scope in ("within_run", "within_base"):
            row = results.correlation(predictor, scope)
            if row is not None:
                parts.append(f"{text.SCOPES[scope]}: {text.relation(row, name)} ({text.correlation(row)})")
    return text.sentence("; ".join(parts)) if parts else text.sentence("too few runs to correlate similarity with gain")
