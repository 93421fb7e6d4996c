"""Figures of question 4: training method, sample size, and the noise of the training seed."""

from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_atlas.report import say, style
from sft_atlas.report.results import Results

MATCHED = {None: "all benchmarks", True: "matched benchmarks", False: "other benchmarks"}


def contrasts(results: Results) -> Figure | None:
    """Paired differences of score with intervals: over all bases, then for each base, then for each benchmark."""
    frame = results["contrasts"]
    if frame.is_empty():
        return None
    pairs = frame.select("factor", "first", "second").unique(maintain_order=True).rows()
    lines = 3 + len(results.bases) + len(results.measures)
    drawing = style.figure(9.5, 0.6 + len(pairs) * (0.5 + 0.24 * lines))
    grid = drawing.subplots(len(pairs), 1, squeeze=False, sharex=True)
    for axes, (factor, first, second) in zip(grid.flat, pairs, strict=True):
        rows = _ordered(results, frame.filter(factor=factor, first=first, second=second))
        for i, row in enumerate(rows):
            ink = style.COLOURS[0] if say.is_clear(row) else style.SOFT
            if row["ci_low"] is not None and row["ci_high"] is not None:
                axes.plot([100 * row["ci_low"], 100 * row["ci_high"]], [i, i], color=ink, linewidth=2.2)
            axes.plot(100 * row["difference"], i, "o", color=ink, markersize=6.5, markeredgecolor="white")
        axes.set_yticks(range(len(rows)), [f"{subject(results, row)} (n = {row['n_pairs']})" for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), title=f"{factor.capitalize()}: {second} minus {first}")
        axes.tick_params(axis="y", length=0)
        style.zero_line(axes, horizontal=False)
        axes.grid(axis="x")
    grid.flat[-1].set_xlabel("difference of score (points), with interval; dark: clear")
    return drawing


def _ordered(results: Results, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """All together first, then bases and benchmarks in the study's order."""
    bases = {base: i for i, base in enumerate(results.bases)}
    measures = {measure: i for i, measure in enumerate(results.measures)}

    def place(row: dict[str, Any]) -> tuple[int, int, int]:
        measure = (row["benchmark"], row["shots"], row["metric"])
        kind = 2 if row["benchmark"] else 1 if row["base"] else 0
        return kind, bases.get(row["base"], measures.get(measure, -1)), [None, True, False].index(row["matched"])

    return sorted(frame.to_dicts(), key=place)


def subject(results: Results, row: dict[str, Any]) -> str:
    """What a contrast is over, in words."""
    if row["benchmark"]:
        return results.labels[row["benchmark"], row["shots"], row["metric"]]
    return row["base"] or f"all bases, {MATCHED[row['matched']]}"


def explain_contrasts(results: Results) -> str:
    """Each contrast over all bases and benchmarks, and on how many benchmarks it is clear."""
    everything = pl.all_horizontal(pl.col("base", "benchmark", "matched").is_null())
    parts = []
    for row in results["contrasts"].filter(everything).iter_rows(named=True):
        unit = " rows" if row["factor"] == "size" else ""
        second, first = f"{row['second']}{unit}", f"{row['first']}{unit}"
        ends = say.interval(row["ci_low"], row["ci_high"], say.points)
        if say.is_clear(row):
            verdict = f"training with {second} scores {'more' if row['difference'] > 0 else 'less'} than with {first}"
        else:
            verdict = f"no clear difference between {second} and {first}"
        level = {name: row[name] for name in ("factor", "first", "second")}
        single = results["contrasts"].filter(pl.col("benchmark").is_not_null(), **level)
        clear = [one for one in single.iter_rows(named=True) if say.is_clear(one)]
        said = f"benchmark by benchmark it is clear on {len(clear)} of {single.height}"
        if clear:
            most = max(clear, key=lambda one: abs(one["difference"]))
            said += f", most on {subject(results, most)} ({say.points(most['difference'])})"
        n = say.count(row["n_pairs"], "pair")
        counts = f"{say.count(row['n_bases'], 'base')} and {say.count(row['n_datasets'], 'dataset')}"
        parts.append(f"{verdict}: {say.points(row['difference'])} points {ends}, n = {n} over {counts}; {said}")
    return say.sentence("; ".join(parts))


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
    """Spread over seeds beside the mean matched gain, and on which bases it was measured."""
    rows = {r["matched"]: r for r in results["seeds"].filter(pl.col("scope") == "all").iter_rows(named=True)}
    row = rows[None]
    ends = say.interval(row["ci_low"], row["ci_high"], lambda v: say.number(100 * v, 1))
    measured = set(results["seeds"].filter(pl.col("scope") == "cell")["base"])
    bases = [base for base in results.bases if base in measured]
    where = f"on {say.count(len(bases), 'base')} of {len(results.bases)}"
    if len(bases) == 1 < len(results.bases):
        where = f"measured on one base alone, {bases[0]}, of {len(results.bases)}"
    said = (
        f"{where}, another training seed moves a gain by {say.number(100 * row['sd'], 1)} points {ends} (standard "
        f"deviation, n = {say.count(row['n_cells'], 'cell')} from {say.count(row['n_runs'], 'run')})"
    )
    matched = results.effect("matched")
    if matched is None:
        return say.sentence(said)
    gain = f"{say.points(matched['gain'])} points {say.interval(matched['ci_low'], matched['ci_high'], say.points)}"
    return say.sentence(f"{said}; the mean matched gain is {gain}")
