"""Figures of question 1: gains by dataset, benchmark and base model, and where scores start and end."""

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from sft_atlas.analysis.audit import without_suspects
from sft_atlas.analysis.cells import MEASURE, row_codes
from sft_atlas.report import style, text
from sft_atlas.report.results import Results

CEILING, FLOOR = 0.95, 0.05


def gains_mean(results: Results) -> Figure | None:
    """Heat map of the mean gain over bases, datasets against benchmarks."""
    rows = results.shown("mean")
    if rows.is_empty():
        return None
    width = max(6.5, 2.6 + 0.52 * len(results.measures))
    drawing = style.figure(width, 1.5 + 0.34 * len(results.datasets))
    axes = drawing.subplots()
    limit = _limit(rows)
    title = f"Mean over {text.count(int(rows['n_bases'].to_numpy().max()), 'base model')}{results.setting.label}"
    _heat_map(axes, results, rows, limit, title, size=8.5)
    _colour_bar(drawing, [axes], limit)
    return drawing


def gains_bases(results: Results) -> Figure | None:
    """Heat maps of the gain, one per base model."""
    rows = results.shown("cell")
    bases = [base for base in results.bases if base in set(rows["base"])]
    if not bases:
        return None
    across = min(2, len(bases))
    down = math.ceil(len(bases) / across)
    width = max(11.0, across * (1.4 + 0.3 * len(results.measures)))
    drawing = style.figure(width, down * (0.9 + 0.25 * len(results.datasets)) + 1.2)
    engine = drawing.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(hspace=0.06, wspace=0.03)
    grid = drawing.subplots(down, across, squeeze=False)
    limit = _limit(rows)
    for i, axes in enumerate(grid.flat):
        if i >= len(bases):
            axes.set_axis_off()
            continue
        below = i + across >= len(bases)
        part = rows.filter(pl.col("base") == bases[i])
        _heat_map(axes, results, part, limit, bases[i], 7.0, names=(i % across == 0, below))
    _colour_bar(drawing, list(grid.flat), limit)
    return drawing


def _limit(rows: pl.DataFrame) -> float:
    """Half-width of the colour scale in points: nearly all cells within, so that one outlier does not pale the rest."""
    return max(1.0, 100 * float(np.quantile(np.abs(rows["gain"].to_numpy()), 0.98)))


def _heat_map(
    axes: Axes,
    results: Results,
    rows: pl.DataFrame,
    limit: float,
    title: str,
    size: float,
    names: tuple[bool, bool] = (True, True),
) -> None:
    """One panel; `names` says whether dataset and benchmark names are written."""
    datasets, measures = results.datasets, results.measures
    values = np.full((len(datasets), len(measures)), np.nan)
    for row in rows.iter_rows(named=True):
        if (row["benchmark"], row["shots"], row["metric"]) not in measures:
            continue
        i, j = datasets.index(row["dataset"]), measures.index((row["benchmark"], row["shots"], row["metric"]))
        values[i, j] = 100 * row["gain"]
        shade = abs(values[i, j]) / limit
        ink = "white" if shade > 0.72 else style.INK
        written = text.number(values[i, j], 0)
        axes.text(j, i, written, ha="center", va="center", fontsize=size, color=ink, zorder=4)
        if row["matched"]:
            box = Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=style.INK, linewidth=1.7, zorder=3)
            box.set_path_effects([Stroke(linewidth=4, foreground="white"), Normal()])
            axes.add_patch(box)
    axes.set_facecolor("#f1f3f5")
    axes.pcolormesh(
        np.arange(len(measures) + 1) - 0.5,
        np.arange(len(datasets) + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=style.LOSS_TO_GAIN,
        norm=Normalize(-limit, limit),
        edgecolors="white",
        linewidth=1.0,
    )
    axes.invert_yaxis()
    labels = [results.labels[m] for m in measures]
    axes.set_xticks(range(len(measures)), labels if names[1] else [], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(datasets)), datasets if names[0] else [])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _colour_bar(drawing: Figure, axes: list[Axes], limit: float) -> None:
    """The scale of all panels."""
    shrink = min(0.9, 4.5 / drawing.get_figheight())
    scale = ScalarMappable(Normalize(-limit, limit), style.LOSS_TO_GAIN)
    bar = drawing.colorbar(scale, ax=axes, fraction=0.03, pad=0.015, aspect=22, shrink=shrink, extend="both")
    bar.set_label("gain over the base model (points)\noutlined: data trains what is tested", fontsize=8)
    bar.outline.set_visible(False)


def explain_gains(results: Results) -> str:
    """Largest mean gain, how many means are clear, and what matching data does."""
    rows = results.shown("mean").sort("gain", descending=True)
    clear = [row for row in rows.iter_rows(named=True) if text.is_clear(row)]
    top = rows.row(0, named=True)
    label = results.labels[top["benchmark"], top["shots"], top["metric"]]
    parts = [
        f"The largest mean gain is that of {top['dataset']} on {label}: {_estimate(top)}, "
        f"n = {text.count(top['n_bases'], 'base')}{_format_failures(results, top)}",
        f"clearly above zero (q below {text.CLEAR_Q} over all of them) are {sum(r['gain'] > 0 for r in clear)} of "
        f"{text.count(rows.height, 'mean')}, clearly below {sum(r['gain'] < 0 for r in clear)}",
    ]
    return text.sentence("; ".join(parts))


def _format_failures(results: Results, row: dict) -> str:
    """How many base scores of the row's measure fail on format: such a gain is one of form."""
    failed = results["suspects"].filter(
        (pl.col("fault") == "format, not knowledge") & pl.all_horizontal(pl.col(name) == row[name] for name in MEASURE)
    )
    if failed.is_empty():
        return ""
    return f" (a gain of form: {text.count(failed.height, 'base')} fail there on format, as the audit says)"


def explain_matched(results: Results) -> str:
    """What matching data does, over all bases; empty where the study declares no matches."""
    matched, unmatched, difference = (results.effect(scope) for scope in ("matched", "unmatched", "difference"))
    if matched is None or unmatched is None or difference is None:
        return ""
    if text.spans_zero(difference):
        verdict = "no clear difference"
    else:
        verdict = "matching data helps" if difference["gain"] > 0 else "matching data does worse"
    return text.sentence(
        f"{verdict}: where the data trains what is tested, the gain is {_estimate(matched)} "
        f"(n = {text.count(matched['n_cells'], 'cell')}), elsewhere {_estimate(unmatched)} "
        f"(n = {text.count(unmatched['n_cells'], 'cell')}); on the same base and benchmark the difference is "
        f"{_estimate(difference)}, over {text.count(difference['n_bases'], 'base')} and "
        f"{text.count(difference['n_datasets'], 'dataset')}"
    )


def explain_bases(results: Results) -> str:
    """How often base models agree on the direction of a gain."""
    means = results.shown("mean").filter(pl.col("n_bases") > 1)
    cells = results.shown("cell").join(means, on=["dataset", *MEASURE], suffix="_mean")
    if cells.is_empty():
        return text.sentence("one base model only, so nothing can be said about agreement")
    same = cells["gain"].sign() == cells["gain_mean"].sign()
    factors = [row_codes(cells, [name]) for name in ("base", "dataset")]
    agreement = results.intervals.mean(same.cast(pl.Float64).to_numpy(), *factors)
    ends = [None if np.isnan(end) else min(1.0, max(0.0, end)) for end in (agreement.low, agreement.high)]
    bases = text.count(int(means["n_bases"].to_numpy().max()), "base")
    return text.sentence(
        f"in {_percent(agreement.estimate)} of {text.count(cells.height, 'cell')} "
        f"{text.interval(ends[0], ends[1], _percent)} "
        f"a base model's gain has the sign of the mean over {bases}, to which it belongs itself"
    )


def _estimate(row: dict) -> str:
    """A gain with its interval."""
    return f"{text.points(row['gain'])} points {text.interval(row['ci_low'], row['ci_high'], text.points)}"


def scores(results: Results) -> Figure | None:
    """For each benchmark and base: the base model's score, and the worst and best fine-tuned score."""
    frame = score_ranges(results)
    if frame.is_empty():
        return None
    bases, measures = results.bases, [m for m in results.measures if m[2] not in text.JUDGED]
    step = 1 / (len(bases) + 1)
    drawing = style.figure(9.5, 1.2 + len(measures) * max(0.4, 0.09 * (len(bases) + 1)))
    axes = drawing.subplots()
    for row in frame.iter_rows(named=True):
        i = measures.index((row["benchmark"], row["shots"], row["metric"]))
        y = i - 0.5 + step * (bases.index(row["base"]) + 1)
        ink = style.colour(bases, row["base"])
        axes.plot([100 * row["worst"], 100 * row["best"]], [y, y], color=ink, linewidth=1.6, alpha=0.45)
        axes.plot(100 * row["best"], y, "o", color=ink, markersize=4.5)
        if row["base_score"] is not None:
            axes.plot(100 * row["base_score"], y, "|", color=ink, markersize=9, markeredgewidth=2.2)
    for i, (benchmark, _, _) in enumerate(measures):
        axes.axhline(i + 0.5, color=style.RULE, linewidth=0.8)
        chance = ((results.study.get("benchmarks") or {}).get(benchmark) or {}).get("chance")
        if chance is not None:
            axes.plot([100 * chance] * 2, [i - 0.45, i + 0.45], color=style.INK, linewidth=1, linestyle=":")
    axes.axvspan(100 * CEILING, 100, color=style.RULE, alpha=0.6, zorder=0)
    axes.axvspan(0, 100 * FLOOR, color=style.RULE, alpha=0.6, zorder=0)
    axes.set(xlim=(-1.5, 101.5), ylim=(len(measures) - 0.5, -0.5), xlabel="score (%)")
    axes.set_yticks(range(len(measures)), [results.labels[m] for m in measures])
    axes.tick_params(axis="y", length=0)
    handles = [Line2D([], [], color=style.colour(bases, b), marker="o", markersize=4.5, label=b) for b in bases]
    signs = [
        Line2D(
            [], [], color=style.SOFT, marker="|", markersize=9, markeredgewidth=2.2, linestyle="", label="base model"
        ),
        Line2D([], [], color=style.SOFT, marker="o", markersize=4.5, label="fine-tuned: worst to best"),
    ]
    drawing.legend(handles=[*signs, *handles], loc="outside upper left", ncols=min(6, len(bases) + 2))
    return drawing


def score_ranges(results: Results) -> pl.DataFrame:
    """Worst and best fine-tuned score beside the base model's, per base and measure; fractions only."""
    whole = pl.DataFrame(results.measures, schema=dict.fromkeys(MEASURE), orient="row") if results.measures else None
    known = without_suspects(results["scores"], results["suspects"])
    known = known.filter(pl.col("score").is_not_null() & ~pl.col("metric").is_in(text.JUDGED))
    known = known if whole is None else known.join(whole, on=MEASURE, how="semi")
    key = ["base", *MEASURE]
    tuned = known.filter(pl.col("sample").is_not_null())
    start = known.filter(pl.col("sample").is_null()).select(*key, pl.col("score").alias("base_score"))
    ranges = tuned.group_by(key).agg(
        pl.col("score").min().alias("worst"), pl.col("score").max().alias("best"), pl.len().alias("n")
    )
    return ranges.join(start, on=key, how="left").sort(key)


def explain_scores(results: Results) -> str:
    """Where scores start and end, and how many touch the floor or the ceiling."""
    frame = score_ranges(results)
    start, best = frame["base_score"].drop_nulls().to_numpy(), frame["best"].to_numpy()
    checkpoints = text.count(int(frame["n"].to_numpy().max()), "checkpoint")
    began = f"base models score {_percent(start.min())} to {_percent(start.max())}, " if len(start) else ""
    return text.sentence(
        f"{began}the best fine-tuned models {_percent(best.min())} to {_percent(best.max())} "
        f"(n = {text.count(frame.height, 'pair')} of base and benchmark); {int((start <= FLOOR).sum())} start below "
        f"{_percent(FLOOR)} and {int((best >= CEILING).sum())} end above {_percent(CEILING)}, "
        f"where gains say little. The best of {checkpoints} is by luck a little better than it would be again"
    )


def _percent(share: float) -> str:
    """A fraction in percent."""
    return f"{100 * share:.0f} %"
