"""The figure and the table of a hyper-parameter search: what each setting does around the chosen recipe."""

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from sft_atlas.report import style, text
from sft_atlas.report.html_tables import HtmlTable, _plain, _table
from sft_atlas.report.results import Results

SETTINGS = {
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "epoch": "epochs",
    "schedule": "schedule",
    "warmup_steps": "warm-up steps",
    "max_gradient_norm": "gradient norm",
    "max_length": "maximum length",
    "precision": "precision",
    "optimizer": "optimizer",
    "batching": "batching",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
}
"""What candidates may differ in, and how it is called."""
STATISTICS = {"mean_gain": "mean gain", "worst_gain": "least gain", "mean_rank": "mean rank"}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
"""Place of a panel's legend: under its axis, where no line is hidden."""
DODGE = 0.5
"""Width, in steps of the axis, over which the lines of one panel are spread, so that intervals do not hide."""


def groups(results: Results) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Each chosen candidate with all ranked ones that it was chosen from."""
    ranked = results["selection"].filter(pl.col("rank").is_not_null())
    for chosen in ranked.filter("chosen").iter_rows(named=True):
        same = [pl.col(name).eq_missing(pl.lit(chosen[name])) for name in ("base", "sample")]
        # a choice over both methods has one chosen row only
        alone = ranked.filter("chosen", *same).height == 1
        yield chosen, ranked.filter(*same, pl.lit(True) if alone else pl.col("method") == chosen["method"])


def varying(frame: pl.DataFrame) -> list[str]:
    """Settings with several values."""
    return [name for name in SETTINGS if frame[name].n_unique() > 1]


def selection(results: Results) -> Figure | None:
    """For each choice a row, for each setting a panel: the value over that setting, all others as chosen.

    Lines are batch sizes (over learning rates) or learning rates (over everything else); the chosen one is ringed.
    """
    rows = list(groups(results))
    width = max((len(varying(candidates)) for _, candidates in rows), default=0)
    if not width:
        return None
    drawing = style.figure(3.8 * width, 1 + 3.5 * len(rows))
    grid = drawing.subplots(len(rows), width, squeeze=False, sharey="row")
    for line, (chosen, candidates) in zip(grid, rows, strict=True):
        for axes, setting in zip(line, varying(candidates), strict=False):
            _panel(axes, chosen, candidates, setting)
        for axes in line[len(varying(candidates)) :]:
            axes.set_axis_off()
        line[0].set_ylabel(_unit(chosen["statistic"]))
        line[0].set_title(_place(chosen))
        if chosen["statistic"] == "mean_rank":
            line[0].invert_yaxis()
    return drawing


def _panel(axes: Any, chosen: dict[str, Any], candidates: pl.DataFrame, setting: str) -> None:
    """Value over one setting, a line for each value of another."""
    other = "batch_size" if setting == "learning_rate" else "learning_rate"
    fixed = [name for name in varying(candidates) if name not in (setting, other)]
    shown = candidates.filter(*(pl.col(name).eq_missing(pl.lit(chosen[name])) for name in ("method", *fixed)))
    ticks = shown[setting].unique().sort().to_list()
    lines = shown[other].unique().sort().to_list()
    factor = 1 if chosen["statistic"] == "mean_rank" else 100
    for i, value in enumerate(lines):
        part = shown.filter(pl.col(other) == value).sort(setting)
        shift = DODGE * ((i + 0.5) / len(lines) - 0.5)
        x = [ticks.index(row) + shift for row in part[setting]]
        ink = style.COLOURS[i % len(style.COLOURS)]
        axes.plot(x, factor * part["value"], "o-", color=ink, markersize=4, linewidth=1.2, label=_number(value))
        for place, row in zip(x, part.iter_rows(named=True), strict=True):
            if row["ci_low"] is not None:
                axes.plot([place] * 2, [factor * row["ci_low"], factor * row["ci_high"]], color=ink, alpha=0.5)
            if row["chosen"]:
                axes.plot(place, factor * row["value"], "o", markersize=10, markerfacecolor="none", color=style.INK)
    axes.set_xticks(range(len(ticks)), [_number(tick) for tick in ticks])
    axes.set_xlabel(SETTINGS[setting])
    if len(lines) > 1:
        axes.legend(title=SETTINGS[other], ncols=4, title_fontsize=8, columnspacing=1, handlelength=1.2, **BELOW)
    axes.grid(axis="y")
    if chosen["statistic"] != "mean_rank":
        style.zero_line(axes)


def explain(results: Results) -> str:
    """Each choice with its value, and how many candidates it was chosen from."""
    parts = []
    for chosen, candidates in groups(results):
        settings = ", ".join(f"{SETTINGS[name]} {_number(chosen[name])}" for name in varying(candidates))
        form = text.number if chosen["statistic"] == "mean_rank" else _points
        ends = "" if chosen["ci_low"] is None else f" {text.interval(chosen['ci_low'], chosen['ci_high'], text.points)}"
        tied = int(candidates["tied"].sum())
        rank = "the best" if chosen["rank"] == 1 else f"rank {chosen['rank']} and the preferred one of {tied} tied"
        parts.append(
            f"{_place(chosen)}: {settings or 'the only candidate'} is {rank} of n = "
            f"{text.count(candidates.height, 'candidate')}, {STATISTICS[chosen['statistic']]} {form(chosen['value'])}"
            f"{ends}, {tied} within the study's ties, judged by {chosen['judges'].replace(',', ' and ')}"
        )
    unranked = results["selection"].filter(pl.col("rank").is_null()).height
    lacking = f"; {text.count(unranked, 'candidate')} without a rank, for lack of scores" if unranked else ""
    said = "; ".join(parts) or "no candidate has all scores that judge (n = 0)"
    return text.sentence(f"{said}{lacking}. The best of many is flattered by the choice: expect less elsewhere")


def html_table(results: Results) -> HtmlTable:
    """Candidates, the best of each base first."""
    frame = results["selection"].sort("base", "sample", "method", "rank", "recipe", "epoch", nulls_last=True)
    frame = frame.with_columns(
        pl.col("tied", "chosen").replace_strict({True: "yes", False: ""}, return_dtype=pl.String)
    )
    shown = {name: (SETTINGS[name], _number) for name in varying(frame)} if frame.height else {}
    columns: dict[str, tuple[str, Callable[[Any], str]]] = {
        "base": ("base", _plain),
        "method": ("method", _plain),
        **shown,
        "rank": ("rank", _plain),
        "tied": ("tied", _plain),
        "chosen": ("chosen", _plain),
        "gain": ("mean gain, points", text.points),
        "worst_gain": ("least gain, points", text.points),
    }
    return _table("Candidates of the hyper-parameter search", "selection", frame, columns)


def _place(row: dict[str, Any]) -> str:
    return ", ".join(part for part in (row["base"] or "all bases", row["sample"], row["method"]) if part)


def _points(gain: float) -> str:
    return f"{text.points(gain)} points"


def _unit(statistic: str) -> str:
    return STATISTICS[statistic] + ("" if statistic == "mean_rank" else " (points), with interval")


def _number(value: Any) -> str:
    if isinstance(value, float):
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}" if 0 < abs(value) < 0.001 else f"{value:g}"
    return text.number(None) if value is None else str(value)
