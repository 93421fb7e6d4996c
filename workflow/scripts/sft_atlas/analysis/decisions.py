"""How each claim of the published study is decided: from the tables, the number that says so and its interval.

Limits that words like "few" or "near" need are constants here; claims.py says them in the column `rule`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis.cells import MEASURE, RUN
from sft_atlas.analysis.maps import best_map
from sft_atlas.analysis.statistics import Array, Bootstrap, Interval, codes
from sft_atlas.analysis.training import WIDTH

Row = dict[str, Any]
FEW_COMPONENTS, MOST_VARIANCE = 5, 0.9
LITTLE = 0.1
NEAR = 0.02
ALIKE = (0.8, 1.25)
TOGETHER = 0.3
PEAK = (0.5, 0.7)
PARTING = 0.6
CODE, MATHS = ("humaneval", "mbpp", "code"), ("math", "gsm8k")


@dataclass(frozen=True)
class Evidence:
    """What the analyses of one set of cells found; `frames` are the input and output tables."""

    frames: Mapping[str, pl.DataFrame]
    labels: dict[str, Any]
    bootstrap: Bootstrap


@dataclass(frozen=True)
class Found:
    """A number with its interval and count, and the limits between which the claim holds."""

    number: Interval
    n: str
    low: float = -np.inf
    high: float = np.inf

    @property
    def verdict(self) -> str:
        """confirmed, weak or not."""
        inside = self.low < self.number.estimate < self.high
        if not np.isfinite(self.number.low):
            return "weak" if inside else "not"
        whole = self.low < self.number.low and self.number.high < self.high
        return "confirmed" if inside and whole else "weak" if inside else "not"


def _interval(row: Mapping[str, Any], estimate: str) -> Interval:
    ends = (row[name] if row[name] is not None else float("nan") for name in ("ci_low", "ci_high"))
    return Interval(row[estimate], *ends)


def _row(frame: pl.DataFrame, **values: Any) -> Row | None:
    """The first row with these values; None without one."""
    for name, value in values.items():
        frame = frame.filter(pl.col(name).is_null() if value is None else pl.col(name) == value)
    return frame.row(0, named=True) if frame.height else None


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def few_components(evidence: Evidence) -> Found | None:
    """Cumulative share of the first components of effects, benchmarks as columns."""
    frame = evidence.frames["pca"].filter(pl.col("cumulative").is_not_null())
    row = _row(frame, scope="benchmarks", component=FEW_COMPONENTS)
    return row and Found(
        _interval(row, "cumulative"), f"{row['n_columns']} benchmarks, {row['n_rows']} cells", MOST_VARIANCE
    )  # type: ignore[return-value]


def few_patterns(evidence: Evidence) -> Found | None:
    """Cumulative share of the first components, bases as columns."""
    frame = evidence.frames["pca"].filter(pl.col("cumulative").is_not_null())
    row = _row(frame, scope="bases", component=FEW_COMPONENTS)
    return row and Found(
        _interval(row, "cumulative"), f"{row['n_columns']} bases, {row['n_rows']} cells", MOST_VARIANCE
    )  # type: ignore[return-value]


def same_family(evidence: Evidence) -> Found | None:
    """Pairs of one family against the others."""
    row = _row(evidence.frames["similarity"], scope="difference by family")
    return row and Found(
        _interval(row, "coefficient"), f"{row['n_pairs']} pairs of bases, p {_probability(row['p'])}", 0.0
    )  # type: ignore[return-value]


def language_little(evidence: Evidence) -> Found | None:
    """Pairs of one language against the others."""
    row = _row(evidence.frames["similarity"], scope="difference by language")
    return row and Found(
        _interval(row, "coefficient"), f"{row['n_pairs']} pairs of bases, p {_probability(row['p'])}", high=LITTLE
    )  # type: ignore[return-value]


def code_helps_maths(evidence: Evidence) -> Found | None:
    """Score on maths after code data, minus that after data that trains neither, per base."""
    matches = {name: label.get("matches") or [] for name, label in evidence.labels.get("benchmarks", {}).items()}
    code = {dataset for name in CODE for dataset in matches.get(name, [])}
    maths = {dataset for name in MATHS for dataset in matches.get(name, [])}
    effects = evidence.frames["free"].filter(pl.col("benchmark").is_in(MATHS) & ~pl.col("dataset").is_in(list(maths)))
    kind = effects.with_columns(code=pl.col("dataset").is_in(list(code)))
    key = ["base", "recipe", "size", *MEASURE]
    sides = kind.group_by(*key, "code").agg(pl.col("score").mean()).sort(*key, "code")
    pairs = sides.filter("code").join(sides.filter(~pl.col("code")), on=key, suffix="_other")
    if pairs.is_empty():
        return None
    mean = evidence.bootstrap.mean((pairs["score"] - pairs["score_other"]).to_numpy(), pairs["base"].to_numpy())
    return Found(mean, f"{pairs['base'].n_unique()} bases", 0.0)


def perplexity_negative(evidence: Evidence) -> Found | None:
    """Rank correlation of perplexity with gain between datasets, on one base and benchmark."""
    row = _overall(evidence, "log_perplexity")
    return row and Found(
        _interval(row, "coefficient"), f"{row['n_clusters']} datasets, {row['n_cells']} cells", high=0.0
    )  # type: ignore[return-value]


def perplexity_best(evidence: Evidence) -> Found | None:
    """How much stronger perplexity goes with gain than the next property."""
    rivals = ("mean_tokens", "similarity", "embedding_similarity")
    own, others = _overall(evidence, "log_perplexity"), [_overall(evidence, name) for name in rivals]
    rest = [abs(row["coefficient"]) for row in others if row]
    if own is None or not rest:
        return None
    lead = abs(own["coefficient"]) - max(rest)
    return Found(Interval(lead, float("nan"), float("nan")), f"{own['n_cells']} cells", 0.0)


def _overall(evidence: Evidence, predictor: str) -> Row | None:
    frame = evidence.frames["correlations"].filter(pl.col("coefficient").is_not_null())
    return _row(frame, predictor=predictor, scope="within_base", benchmark=None, method=None, size=None)


def change_grows(evidence: Evidence) -> Found | None:
    """Relative change of the upper half of layers over that of the lower half, per run."""
    layers = evidence.frames["layers"].filter((pl.col("module") == "all") & pl.col("relative").is_not_null())
    layers = layers.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN))
    halves = layers.group_by(*RUN).agg(
        pl.col("relative").filter(pl.col("depth") > 0.5).mean().alias("top"),
        pl.col("relative").filter(pl.col("depth") < 0.5).mean().alias("bottom"),
    )
    halves = halves.drop_nulls(["top", "bottom"]).filter(pl.col("bottom") > 0).sort(RUN)
    if halves.is_empty():
        return None
    ratio = (halves["top"] / halves["bottom"]).log().to_numpy()
    mean = evidence.bootstrap.mean(ratio, halves["base"].to_numpy())
    return Found(Interval(*np.exp([mean.estimate, mean.low, mean.high])), f"{halves.height} runs", 1.0)


def peak_in_the_middle(evidence: Evidence) -> Found | None:
    """Depth at which the change of layers goes with the gain most."""
    row = _row(evidence.frames["layer_peaks"], change="relative", target="mean_gain", module="all", method="full")
    return row and Found(_interval(row, "depth"), f"{row['n_runs']} runs", *PEAK)  # type: ignore[return-value]


def dimension_parts(evidence: Evidence) -> Found | None:
    """Size of the change of intrinsic dimension from depth 0.6 on over that below, per run."""
    known_ones = evidence.frames["dimensions"].filter(pl.col("dimension").is_not_null())
    before = known_ones.filter(pl.col("sample").is_null()).select("base", "layer", before="dimension")
    tuned = known_ones.filter(pl.col("sample").is_not_null())
    last = tuned.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN)).join(before, on=["base", "layer"])
    size = (pl.col("dimension") - pl.col("before")).abs()
    parts = last.group_by(*RUN).agg(
        size.filter(pl.col("depth") >= PARTING).mean().alias("above"),
        size.filter(pl.col("depth") < PARTING).mean().alias("below"),
    )
    parts = parts.drop_nulls(["above", "below"]).sort(RUN)
    if parts.is_empty():
        return None
    ratio = evidence.bootstrap.interval(
        parts.select("above", "below").to_numpy(), _ratio, codes(parts["base"].to_numpy())
    )
    return Found(ratio, f"{parts.height} runs", 1.0)


def clusters_by_base(evidence: Evidence) -> Found | None:
    """Share of models whose nearest neighbour on the map (outside their own run) has the same base, over chance."""
    frame = best_map(evidence.frames["map"]).filter(pl.col("sample").is_not_null())
    if frame["base"].n_unique() < 3:
        return None
    place = frame.select("x", "y").to_numpy()
    run = codes(*(frame[name].cast(pl.String).to_numpy() for name in RUN))
    base = codes(frame["base"].to_numpy())
    distance = ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    distance[run[:, None] == run[None]] = np.inf
    same = (base[distance.argmin(axis=1)] == base).astype(float)
    chance = np.array([(base == b).mean() for b in base])
    # each base counts alike, however many models it has
    weight = 1 / np.bincount(base)[base]
    totals = np.stack([same * weight, chance * weight], axis=-1)
    lift = evidence.bootstrap.interval(totals, _ratio, base)
    return Found(lift, f"{frame.height} models of {frame['base'].n_unique()} bases", 2.0)


def _ratio(totals: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[..., 0] / totals[..., 1]


def epochs_converge(evidence: Evidence) -> Found | None:
    """Mean absolute change of score in a run's last epoch over that in its second."""
    scores = evidence.frames["whole scores"].filter(pl.col("sample").is_not_null() & pl.col("score").is_not_null())
    key = [*RUN, *MEASURE]
    several = scores.filter(pl.col("epoch").n_unique().over(key) >= 4).sort(*key, "epoch")
    steps = several.with_columns(step=((pl.col("score") - pl.col("score").shift().over(key)) / WIDTH).abs()).drop_nulls(
        "step"
    )
    if steps.is_empty():
        return None
    ends = steps.group_by(key, maintain_order=True).agg(
        pl.col("step").first().alias("first"), pl.col("step").last().alias("last")
    )
    cluster = codes(*(ends[name].cast(pl.String).to_numpy() for name in RUN))
    ratio = evidence.bootstrap.interval(ends.select("last", "first").to_numpy(), _ratio, cluster)
    return Found(ratio, f"{int(cluster.max()) + 1} runs", high=0.5)


def larger_on_the_rim(evidence: Evidence) -> Found | None:
    """Distance on the map from the middle of the base's models: the larger sample minus the smaller, alike
    otherwise.
    """
    frame = best_map(evidence.frames["map"]).filter(pl.col("sample").is_not_null())
    frame = frame.filter(pl.col("dataset") != pl.col("sample"))
    away = frame.with_columns(
        radius=(
            (pl.col("x") - pl.col("x").mean().over("base")) ** 2 + (pl.col("y") - pl.col("y").mean().over("base")) ** 2
        ).sqrt()
    )
    key = ["base", "dataset", "recipe", "epoch"]
    sizes = sorted(away["size"].drop_nulls().unique())
    if len(sizes) < 2:
        return None
    small, large = (away.filter(pl.col("size") == size).select(*key, "radius") for size in (sizes[0], sizes[-1]))
    pairs = large.join(small, on=key, suffix="_small").sort(key)
    if pairs.is_empty():
        return None
    cluster = codes(pairs["base"].to_numpy(), pairs["dataset"].to_numpy())
    mean = evidence.bootstrap.mean((pairs["radius"] - pairs["radius_small"]).to_numpy(), cluster)
    return Found(mean, f"{pairs.height} pairs, {sizes[-1]:,} against {sizes[0]:,} rows", 0.0)


def lora_near_full(evidence: Evidence) -> Found | None:
    """Paired difference of score between LoRA and full fine-tuning at the last epoch."""
    scores = evidence.frames["whole scores"].filter(
        pl.col("sample").is_not_null() & pl.col("held_out").is_null() & pl.col("score").is_not_null()
    )
    last = scores.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN)).with_columns(pl.col("score") / WIDTH)
    key = ["base", "sample", "schedule", *MEASURE]
    cells = last.group_by(*key, "method").agg(pl.col("score").mean())
    sides = [cells.filter(pl.col("method") == method) for method in ("full", "lora")]
    pairs = sides[1].join(sides[0], on=key, suffix="_full", nulls_equal=True).sort(key)
    if pairs.is_empty():
        return None
    cluster = codes(pairs["base"].to_numpy(), pairs["sample"].to_numpy())
    mean = evidence.bootstrap.mean((pairs["score"] - pairs["score_full"]).to_numpy(), cluster)
    return Found(mean, f"{pairs.height} pairs of {pairs['base'].n_unique()} bases", -NEAR, NEAR)


def lora_early(evidence: Evidence) -> Found | None:
    """Mean absolute gain of LoRA over that of full fine-tuning after the first epoch of one mixture."""
    gains = evidence.frames["whole gains"].filter(
        (pl.col("epoch") == 1) & pl.col("held_out").is_null() & (pl.col("dataset") == pl.col("sample"))
    )
    key = ["base", "sample", "schedule", *MEASURE]
    size = (
        gains.with_columns(size_of=(pl.col("gain") / WIDTH).abs())
        .group_by(*key, "method")
        .agg(pl.col("size_of").mean())
    )
    sides = [size.filter(pl.col("method") == method) for method in ("full", "lora")]
    pairs = sides[1].join(sides[0], on=key, suffix="_full", nulls_equal=True).sort(key)
    if pairs.is_empty():
        return None
    ratio = evidence.bootstrap.interval(
        pairs.select("size_of", "size_of_full").to_numpy(), _ratio, pairs["base"].to_numpy()
    )
    return Found(ratio, f"{pairs.height} pairs of {pairs['base'].n_unique()} bases", *ALIKE)


def languages_together(evidence: Evidence) -> Found | None:
    """The weakest correlation, within bases, between gains on a benchmark and its counterpart in another language."""
    frame = evidence.frames["crosslingual"].filter(
        (pl.col("scope") == "within base") & pl.col("coefficient").is_not_null()
    )
    if frame.is_empty():
        return None
    row = frame.sort("coefficient", "benchmark", "other").row(0, named=True)
    return Found(
        _interval(row, "coefficient"),
        f"{row['n_runs']} runs, weakest pair {row['benchmark']} and {row['other']}",
        TOGETHER,
    )
