"""Figures of question 3: how much each layer changes, and whether its change goes with the gain."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_atlas.analysis.cells import row_codes
from sft_atlas.report import say, style
from sft_atlas.report.results import Results

LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
PANELS = {
    "relative": ("change / size of weights (%, log scale)", 100.0),
    "norm": ("norm of the change (log scale)", 1.0),
}
"""Columns of table `layers`, with the title of their axis and its unit."""


def _profiles(results: Results, change: str = "relative") -> pl.DataFrame:
    """Size of change (a column of table `layers`) at the last epoch, per base x dataset x method x depth."""
    last = pl.col("epoch") == pl.col("epoch").max().over("base", "sample", "recipe", "seed")
    frame = results["layers"].filter(last & (pl.col("module") == "all") & pl.col(change).is_not_null())
    key = ["base", "dataset", "method", "layer", "depth"]
    return frame.group_by(key).agg(pl.col(change).mean().alias("size")).sort(key)


def profile(results: Results) -> Figure | None:
    """Change by depth, relative and raw: one line per base model and method."""
    key = ["base", "method", "depth"]
    panels = {name: _profiles(results, name).group_by(key).agg(pl.col("size").mean()).sort(key) for name in PANELS}
    frame = panels["relative"]
    if frame.is_empty():
        return None
    bases = [base for base in results.bases if base in set(frame["base"])]
    methods = frame["method"].unique().sort().to_list()
    drawing = style.figure(12.5, 4.4)
    for axes, (change, (title, unit)) in zip(drawing.subplots(1, 2), PANELS.items(), strict=True):
        for (base, method), part in panels[change].group_by("base", "method", maintain_order=True):
            line, ink = LINES[methods.index(method) % len(LINES)], style.colour(bases, str(base))
            axes.plot(part["depth"], unit * part["size"], line, color=ink, linewidth=1.7, marker="o", markersize=3)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set(xlabel="relative depth (0: first layer, 1: last)", ylabel=title)
        axes.grid(axis="y", which="both")
    handles = [Line2D([], [], color=style.colour(bases, b), label=b) for b in bases]
    handles += [
        Line2D([], [], color=style.INK, linestyle=LINES[i % len(LINES)], label=m or "unknown method")
        for i, m in enumerate(methods)
    ]
    drawing.legend(handles=handles, loc="outside right upper")
    return drawing


def explain_profile(results: Results) -> str:
    """Whether the last third of layers changes more than the first third, relative to its weights and in norm."""
    said = {name: _thirds(results, column) for name, column in (("relative", "relative"), ("raw", "norm"))}
    parts = [f"{name} change: {'; '.join(part)}" for name, part in said.items() if part]
    return " ".join(map(say.sentence, parts)) or say.sentence("too few layers to compare the top with the bottom")


def _thirds(results: Results, change: str) -> list[str]:
    """For each method the last third's change over the first third's, with an interval over bases and datasets."""
    key = ["base", "dataset", "method"]
    thirds = (
        _profiles(results, change)
        .group_by(key)
        .agg(
            pl.col("size").filter(pl.col("depth") <= 1 / 3).mean().alias("first"),
            pl.col("size").filter(pl.col("depth") >= 2 / 3).mean().alias("last"),
        )
        .filter((pl.col("first") > 0) & (pl.col("last") > 0))
        .sort(key)
    )
    parts = []
    for (method,), part in thirds.group_by("method", maintain_order=True):
        factors = [row_codes(part, [name]) for name in ("base", "dataset")]
        ratio = results.intervals.mean((part["last"] / part["first"]).log().to_numpy(), *factors)
        ends = [None if np.isnan(end) else float(np.exp(end)) for end in (ratio.low, ratio.high)]
        said = f"{float(np.exp(ratio.estimate)):.2f} times the first third's {say.interval(*ends)}"
        if ends[0] is None or ends[1] is None or ends[0] <= 1 <= ends[1]:
            said += ", so no clear difference"
        parts.append(
            f"under {method}, the last third of layers changes {said}, n = {say.count(part.height, 'profile')}"
        )
    return parts


def correlation(results: Results) -> Figure | None:
    """Correlation of relative change with gain by depth, with interval bands, one panel per target."""
    frame = _within_base(results)
    if frame.is_empty():
        return None
    targets = [target for target in say.TARGETS if target in set(frame["target"])]
    methods = frame["method"].unique().sort().to_list()
    drawing = style.figure(5.0 * len(targets) + 0.5, 4.0)
    grid = drawing.subplots(1, len(targets), squeeze=False, sharey=True)
    for axes, target in zip(grid.flat, targets, strict=True):
        for method in methods:
            part = frame.filter((pl.col("target") == target) & (pl.col("method") == method)).sort("depth")
            ink = style.COLOURS[methods.index(method) % len(style.COLOURS)]
            band = part.drop_nulls(["ci_low", "ci_high"])
            axes.fill_between(band["depth"], band["ci_low"], band["ci_high"], color=ink, alpha=0.15, linewidth=0)
            axes.plot(part["depth"], part["coefficient"], color=ink, linewidth=2, label=method)
            for row in part.iter_rows(named=True):
                face = ink if say.is_clear(row) else "white"
                axes.plot(row["depth"], row["coefficient"], "o", markersize=5.5, color=ink, markerfacecolor=face)
        style.zero_line(axes)
        axes.set(ylim=(-1.02, 1.02), xlabel="relative depth", title=say.TARGETS[target].capitalize())
        axes.grid(axis="y")
    grid.flat[0].set_ylabel("rank correlation of change with gain\n(within base; filled: clear)")
    grid.flat[0].legend(loc="lower left", ncols=len(methods))
    return drawing


def _within_base(results: Results) -> pl.DataFrame:
    """Correlations of whole layers, runs of one base compared; undefined ones left out."""
    return results["layer_correlations"].filter(
        (pl.col("scope") == "within_base")
        & (pl.col("change") == "relative")
        & (pl.col("module") == "all")
        & pl.col("coefficient").is_not_null()
    )


def explain_correlation(results: Results) -> str:
    """Where the correlation is strongest, per target and method, and at how many depths it is clear."""
    parts = []
    for (target, method), part in (
        _within_base(results).sort("target", "method", "depth").group_by("target", "method", maintain_order=True)
    ):
        rows = part.to_dicts()
        clear = sum(say.is_clear(row) for row in rows)
        top = max(rows, key=lambda row: abs(row["coefficient"]))
        where = f"strongest at depth {say.number(top['depth'], 1)}: {_coefficient(top)}"
        verdict = f"clear at {clear} of {say.count(len(rows), 'depth')}" if clear else "no clear relation at any depth"
        parts.append(f"{say.TARGETS[str(target)]}, {method}: {verdict} ({where})")
    if not parts:
        return say.sentence("too few runs to correlate layers with gain")
    return say.sentence(f"how much layers change, against {'; '.join(parts)}")


def _coefficient(row: dict[str, Any]) -> str:
    """A coefficient with interval, q and n."""
    return (
        f"ρ = {say.number(row['coefficient'])} {say.interval(row['ci_low'], row['ci_high'])}, "
        f"q {say.probability(row['q'])}, n = {say.count(row['n_runs'], 'run')}"
    )
