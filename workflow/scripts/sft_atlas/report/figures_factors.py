"""Figures of question 4: training method, sample size, and the noise of the training seed."""

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_atlas.report import style, text
from sft_atlas.report.results import Results

MATCHED = {None: "all benchmarks", True: "matched benchmarks", False: "other benchmarks"}


def methods(results: Results) -> Figure | None:
    """Paired differences between methods and sizes with intervals: over all bases, then for each."""
    frame = results["methods"]
    if frame.is_empty():
        return None
    pairs = frame.select("comparison", "first", "second").unique(maintain_order=True).rows()
    lines = 3 + len(results.bases)
    drawing = style.figure(9.5, 0.6 + len(pairs) * (0.5 + 0.27 * lines))
    grid = drawing.subplots(len(pairs), 1, squeeze=False, sharex=True)
    for axes, (comparison, first, second) in zip(grid.flat, pairs, strict=True):
        same = (pl.col("comparison") == comparison) & (pl.col("first") == first) & (pl.col("second") == second)
        part = frame.filter(same & (pl.col("base").is_null() | pl.col("matched").is_null()))
        order = {base: i for i, base in enumerate(results.bases)}
        rows = sorted(
            part.to_dicts(), key=lambda r: (order.get(r["base"], -1), r["matched"] is not None, not r["matched"])
        )
        for i, row in enumerate(rows):
            ink = style.SOFT if text.spans_zero(row) else style.COLOURS[0]
            if row["ci_low"] is not None and row["ci_high"] is not None:
                axes.plot([100 * row["ci_low"], 100 * row["ci_high"]], [i, i], color=ink, linewidth=2.2)
            axes.plot(100 * row["difference"], i, "o", color=ink, markersize=6.5, markeredgecolor="white")
        names = [row["base"] or f"all bases, {MATCHED[row['matched']]}" for row in rows]
        axes.set_yticks(range(len(rows)), [f"{name} (n = {r['n_pairs']})" for name, r in zip(names, rows, strict=True)])
        axes.set(ylim=(len(rows) - 0.4, -0.6), title=f"{comparison.capitalize()}: {second} minus {first}")
        axes.tick_params(axis="y", length=0)
        style.zero_line(axes, horizontal=False)
        axes.grid(axis="x")
    grid.flat[-1].set_xlabel("difference of gain (points), with interval")
    return drawing


def explain_methods(results: Results) -> str:
    """Each comparison over all bases and benchmarks."""
    parts = []
    rows = results["methods"].filter(pl.col("base").is_null() & pl.col("matched").is_null())
    for row in rows.iter_rows(named=True):
        unit = " rows" if row["comparison"] == "size" else ""
        second, first = f"{row['second']}{unit}", f"{row['first']}{unit}"
        ends = text.interval(row["ci_low"], row["ci_high"], text.points)
        if text.spans_zero(row):
            verdict = f"no clear difference between {second} and {first}"
        else:
            verdict = f"training with {second} gains {'more' if row['difference'] > 0 else 'less'} than with {first}"
        n = text.count(row["n_pairs"], "pair")
        parts.append(
            f"{verdict}: {text.points(row['difference'])} points {ends}, n = {n} of equal base, dataset and benchmark"
        )
    return text.sentence("; ".join(parts))


def seeds(results: Results) -> Figure | None:
    """Matched gains of each benchmark beside the spread that another training seed would give."""
    pooled = results["seeds"].filter(pl.col("scope") == "benchmark")
    if pooled.is_empty():
        return None
    spread = {(r["benchmark"], r["shots"], r["metric"]): 100 * r["sd"] for r in pooled.iter_rows(named=True)}
    measures = [measure for measure in results.measures if measure in spread]
    gains = results["effects"].filter((pl.col("scope") == "cell") & pl.col("matched"))
    bases = results.bases
    drawing = style.figure(9.5, 1.6 + 0.38 * len(measures))
    axes = drawing.subplots()
    for i, measure in enumerate(measures):
        axes.barh(i, 4 * spread[measure], left=-2 * spread[measure], height=0.72, color=style.RULE, zorder=1)
    for row in gains.iter_rows(named=True):
        measure = (row["benchmark"], row["shots"], row["metric"])
        if measure in spread:
            y = measures.index(measure) + 0.5 * ((bases.index(row["base"]) + 0.5) / len(bases) - 0.5)
            ink = style.colour(bases, row["base"])
            axes.plot(100 * row["gain"], y, "o", color=ink, markersize=5, alpha=0.8, markeredgewidth=0, zorder=2)
    shown = [base for base in bases if base in set(gains["base"])]
    handles = [Line2D([], [], color=style.colour(bases, b), marker="o", linestyle="", label=b) for b in shown]
    drawing.legend(handles=handles, loc="outside upper left", ncols=8, handletextpad=0.2)
    style.zero_line(axes, horizontal=False)
    ends = [100 * gain for gain in gains["gain"]] + [side * 2 * sd for sd in spread.values() for side in (-1, 1)]
    room = 0.04 * (max(ends) - min(ends))
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.set_yticks(range(len(measures)), [results.labels[m] for m in measures])
    axes.set(ylim=(len(measures) - 0.4, -0.6))
    axes.set_xlabel("points; bar: ±2 standard deviations over training seeds; dots: matched gains, by base model")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return drawing


def explain_seeds(results: Results) -> str:
    """Spread over seeds against the mean matched gain."""
    rows = {r["matched"]: r for r in results["seeds"].filter(pl.col("scope") == "all").iter_rows(named=True)}
    row = rows[None]
    ends = text.interval(row["ci_low"], row["ci_high"], lambda v: text.number(100 * v, 1))
    said = (
        f"another training seed moves a gain by {text.number(100 * row['sd'], 1)} points {ends} (standard deviation, "
        f"n = {text.count(row['n_cells'], 'cell')} from {text.count(row['n_runs'], 'run')})"
    )
    matched = results.effect("matched")
    if matched is None:
        return text.sentence(said)
    gain = f"{text.points(matched['gain'])} points {text.interval(matched['ci_low'], matched['ci_high'], text.points)}"
    if row["sd"] > 0:
        return text.sentence(
            f"{said}; the mean matched gain is {gain}, {abs(matched['gain']) / row['sd']:.1f} times that"
        )
    return text.sentence(f"{said}; the mean matched gain is {gain}")
