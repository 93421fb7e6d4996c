"""How each claim of the published study is decided: from the tables, the number that says so and its interval.

A claim is *confirmed* when its whole interval lies where the claim says, *contradicted* when the whole interval lies
elsewhere, and *open* else. Limits that words like "few" or "near" need are constants here; claims.py says them in the
column `rule`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis.cells import MEASURE, RUN, row_codes
from sft_atlas.analysis.correlations import known_cells, with_predictors
from sft_atlas.analysis.interactions import LAYOUTS
from sft_atlas.analysis.intervals import LOG, MIN_CLUSTERS, SHARE, Jackknife, ratio
from sft_atlas.analysis.maps import best_map
from sft_atlas.analysis.statistics import Array, Interval, correlation_products, correlation_ratio
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
CLEAR_Q = 0.05
"""A relation counts as clear when its interval excludes zero and its q is below this."""
MOST_UNITS = 1000
"""No study will have more bases or datasets: so many are not foretold."""


@dataclass(frozen=True)
class Evidence:
    """What the analyses of one set of cells found; `frames` are the input and output tables."""

    frames: Mapping[str, pl.DataFrame]
    labels: dict[str, Any]
    intervals: Jackknife


@dataclass(frozen=True)
class Found:
    """A number with its interval and count, and the limits between which the claim holds.

    `units` counts what varies behind the interval, `beside` says the number under other choices and by chance, and
    `doubt` is a reason to leave the claim open whatever the interval says.
    """

    number: Interval
    n: str
    low: float = -np.inf
    high: float = np.inf
    units: Mapping[str, int] = field(default_factory=dict)
    beside: str = ""
    doubt: str = ""

    @property
    def verdict(self) -> str:
        """confirmed, contradicted or open."""
        return "open" if self.doubt else self.by_interval

    @property
    def by_interval(self) -> str:
        """The verdict of the interval alone."""
        if not np.isfinite(self.number.low):
            return "open"
        if self.low < self.number.low and self.number.high < self.high:
            return "confirmed"
        outside = self.number.high <= self.low or self.number.low >= self.high
        return "contradicted" if outside else "open"

    @property
    def decides(self) -> str | None:
        """What would decide an open claim; None where it is decided."""
        if self.verdict != "open":
            return None
        few = [f"{count} {name}" for name, count in self.units.items() if count < MIN_CLUSTERS]
        if few:
            return f"too few: {' and '.join(few)}, where an interval needs {MIN_CLUSTERS}"
        if self.doubt:
            return self.doubt
        if not np.isfinite(self.number.low):
            return "too few: the number has no interval here"
        return self._width()

    def _width(self) -> str:
        """How much narrower the interval would have to be, and how many units that takes if nothing else changes."""
        number = self.number
        inside = self.low < number.estimate < self.high
        limits = [limit for limit in (self.low, self.high) if np.isfinite(limit)]
        if not inside:
            limits = [min(limits, key=lambda limit: abs(number.estimate - limit))]
        reach = {
            limit: abs(number.estimate - (number.low if limit < number.estimate else number.high)) for limit in limits
        }
        limit = max(limits, key=lambda limit: reach[limit] / max(abs(number.estimate - limit), 1e-300))
        need = abs(number.estimate - limit)
        said = f"the interval reaches {reach[limit]:.3g} towards {limit:g}, less than {need:.3g} would decide here"
        times = (reach[limit] / need) ** 2 if need > 0 else np.inf
        if max(self.units.values(), default=0) * times > MOST_UNITS:
            return f"{said}: more than {MOST_UNITS:,} {' and '.join(self.units)}"
        needed = " and ".join(f"{int(np.ceil(count * times)):,} {name}" for name, count in self.units.items())
        return f"{said}: about {needed}" if needed else said


def count_units(frame: pl.DataFrame) -> dict[str, int]:
    """Bases and datasets of a frame."""
    return {"bases": frame["base"].n_unique(), "datasets": frame["dataset"].n_unique()}


def _of_row(row: Mapping[str, Any]) -> dict[str, int]:
    """Bases and datasets that a row counts."""
    return {name: row[f"n_{name}"] for name in ("bases", "datasets")}


def _said(row: Mapping[str, Any], name: str) -> str:
    """A number of a table with its interval."""
    ends = "no interval" if row["ci_low"] is None else f"{row['ci_low']:.3f}, {row['ci_high']:.3f}"
    return f"{row[name]:.3f} [{ends}]"


def _interval(row: Mapping[str, Any], estimate: str) -> Interval:
    """The interval that a row of a table holds."""
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
    return _share_of_components(evidence, "benchmarks")


def few_patterns(evidence: Evidence) -> Found | None:
    """Cumulative share of the first components, bases as columns."""
    return _share_of_components(evidence, "bases")


def _share_of_components(evidence: Evidence, scope: str) -> Found | None:
    """The share in the first layout, open where another layout or unrelated columns say otherwise."""
    frame = evidence.frames["pca"].filter(pl.col("cumulative").is_not_null(), scope=scope, component=FEW_COMPONENTS)
    rows = {row["layout"]: row for row in frame.iter_rows(named=True)}
    ordered = [rows[layout] for layout in LAYOUTS if layout in rows]
    if not ordered:
        return None
    units = count_units(evidence.frames["free"])
    said = [
        f"{row['layout']} ({row['n_columns']} columns): {_said(row, 'cumulative')}, shuffled {row['chance']:.3f}"
        for row in ordered
    ]
    n = f"{ordered[0]['n_columns']} {scope}, {ordered[0]['n_rows']} cells"
    every = [Found(_interval(row, "cumulative"), n, MOST_VARIANCE, units=units) for row in ordered]
    doubt = ""
    if min(row["chance"] for row in ordered) > MOST_VARIANCE:
        doubt = "more columns: so few reach the limit when they are shuffled, too"
    elif len({found.by_interval for found in every}) > 1:
        doubt = "the layout, which the published study does not state: layouts give different verdicts"
    return Found(every[0].number, n, MOST_VARIANCE, units=units, beside="; ".join(said), doubt=doubt)


def same_family(evidence: Evidence) -> Found | None:
    """Pairs of one family against the others."""
    return _difference_by(evidence, "family", low=0.0)


def language_little(evidence: Evidence) -> Found | None:
    """Pairs of one language against the others."""
    return _difference_by(evidence, "language", high=LITTLE)


def _difference_by(evidence: Evidence, label: str, low: float = -np.inf, high: float = np.inf) -> Found | None:
    row = _row(evidence.frames["similarity"], scope=f"difference by {label}")
    if row is None or row["coefficient"] is None:
        return None
    said = f"{row['n_pairs']} pairs of bases, p {_probability(row['p'])}"
    return Found(_interval(row, "coefficient"), said, low, high, count_units(evidence.frames["free"]))


def code_helps_maths(evidence: Evidence) -> Found | None:
    """Score on maths after code data, minus that after data that trains neither, per base; of these very datasets."""
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
    mean = evidence.intervals.mean((pairs["score"] - pairs["score_other"]).to_numpy(), row_codes(pairs, ["base"]))
    count = pairs["base"].n_unique()
    return Found(mean, f"{count} bases, the datasets of this study", 0.0, units={"bases": count})


def perplexity_negative(evidence: Evidence) -> Found | None:
    """Rank correlation of perplexity with gain between datasets, on one base and benchmark."""
    row = _overall(evidence, "log_perplexity")
    if row is None:
        return None
    n = f"{row['n_clusters']} datasets, {row['n_cells']} cells"
    return Found(_interval(row, "coefficient"), n, high=0.0, units={"datasets": row["n_clusters"]})


def perplexity_best(evidence: Evidence) -> Found | None:
    """How much stronger perplexity goes with gain than the next property, leaving out datasets."""
    rivals = [name for name in ("mean_tokens", "similarity", "embedding_similarity") if _overall(evidence, name)]
    if _overall(evidence, "log_perplexity") is None or not rivals:
        return None
    runs = with_predictors(evidence.frames["whole gains"], evidence.frames["predictors"])
    names = runs["dataset"].unique().sort().to_list()
    sums = []
    for predictor in ("log_perplexity", *rivals):
        cells = known_cells(runs, predictor)
        strata = row_codes(cells, ["base", *MEASURE])
        products, keep = correlation_products(cells[predictor].to_numpy(), cells["gain"].to_numpy(), strata, rank=True)
        place = np.array([names.index(name) for name in cells["dataset"]])[keep]
        sums.append(np.stack([np.bincount(place, weights=c, minlength=len(names)) for c in products.T], axis=-1))
    totals = np.stack(sums, axis=1)

    def lead(found: Array) -> Array:
        size = np.abs(correlation_ratio(found))
        return np.asarray(size[..., 0] - size[..., 1:].max(axis=-1))

    whole = totals.sum(axis=0)
    number = evidence.intervals.ends(float(lead(whole)), [lead(whole - totals)])
    count = known_cells(runs, "log_perplexity").height
    return Found(number, f"{len(names)} datasets, {count} cells", 0.0, units={"datasets": len(names)})


def _overall(evidence: Evidence, predictor: str) -> Row | None:
    frame = evidence.frames["correlations"].filter(pl.col("coefficient").is_not_null())
    return _row(frame, predictor=predictor, scope="within_base", benchmark=None, method=None, size=None)


def change_grows(evidence: Evidence) -> Found | None:
    """Relative change of the upper half of layers over that of the lower half, per run."""
    layers = evidence.frames["layers"].filter((pl.col("module") == "all") & pl.col("relative").is_not_null())
    layers = layers.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN))
    halves = layers.group_by(*RUN, "dataset").agg(
        pl.col("relative").filter(pl.col("depth") > 0.5).mean().alias("top"),
        pl.col("relative").filter(pl.col("depth") < 0.5).mean().alias("bottom"),
    )
    halves = halves.drop_nulls(["top", "bottom"]).filter(pl.col("bottom") > 0).sort(RUN)
    if halves.is_empty():
        return None
    size = (halves["top"] / halves["bottom"]).log().to_numpy()
    mean = evidence.intervals.mean(size, row_codes(halves, ["base"]), row_codes(halves, ["dataset"]))
    number = Interval(*np.exp([mean.estimate, mean.low, mean.high]).tolist())
    return Found(number, f"{halves.height} runs", 1.0, units=count_units(halves))


def peak_in_the_middle(evidence: Evidence) -> Found | None:
    """Depth at which the change of layers goes with the gain most; open where the correlation there is not clear."""
    which = {"change": "relative", "target": "mean_gain", "module": "all", "method": "full"}
    row = _row(evidence.frames["layer_peaks"], **which)
    if row is None:
        return None
    units = {"datasets": row["n_clusters"]}
    known_ones = evidence.frames["layer_correlations"].filter(pl.col("coefficient").is_not_null())
    there = _row(known_ones, scope="within_base", depth=row["depth"], **which)
    said = f"ρ = {_said(there, 'coefficient')} at the peak" if there else ""
    clear = there and there["ci_low"] is not None and there["ci_low"] > 0 and (there["q"] or 0) < CLEAR_Q
    doubt = "" if clear else f"a clear correlation at the peak; it is not: {said or 'it has no interval'}"
    return Found(_interval(row, "depth"), f"{row['n_runs']} runs", *PEAK, units=units, beside=said, doubt=doubt)


def dimension_parts(evidence: Evidence) -> Found | None:
    """Size of the change of intrinsic dimension from depth 0.6 on over that below, per run."""
    known_ones = evidence.frames["dimensions"].filter(pl.col("dimension").is_not_null())
    before = known_ones.filter(pl.col("sample").is_null()).select("base", "layer", before="dimension")
    tuned = known_ones.filter(pl.col("sample").is_not_null())
    last = tuned.filter(pl.col("epoch") == pl.col("epoch").max().over(RUN)).join(before, on=["base", "layer"])
    size = (pl.col("dimension") - pl.col("before")).abs()
    parts = last.group_by(*RUN, "dataset").agg(
        size.filter(pl.col("depth") >= PARTING).mean().alias("above"),
        size.filter(pl.col("depth") < PARTING).mean().alias("below"),
    )
    parts = parts.drop_nulls(["above", "below"]).sort(RUN)
    if parts.is_empty():
        return None
    factors = row_codes(parts, ["base"]), row_codes(parts, ["dataset"])
    number = evidence.intervals.interval(parts.select("above", "below").to_numpy(), ratio, *factors, scale=LOG)
    return Found(number, f"{parts.height} runs", 1.0, units=count_units(parts))


def clusters_by_base(evidence: Evidence) -> Found | None:
    """Share of models whose nearest neighbour (outside their own run) has the same base, over chance.

    Neighbours are those by all texts, or all scores, not on the map. Each base counts alike, however many models it
    has. Where every model's neighbour is of its base, the lower end is that of Clopper and Pearson (1934) for as many
    bases.
    """
    frame = best_map(evidence.frames["map"]).filter(pl.col("sample").is_not_null() & pl.col("nearest").is_not_null())
    bases = frame["base"].n_unique()
    if bases < MIN_CLUSTERS:
        return None
    own = frame.with_columns(same=(pl.col("nearest") == pl.col("base")).cast(pl.Float64), n=pl.len().over("base"))
    chance = 1 / bases
    totals = own.select(pl.col("same") / pl.col("n"), one=1 / pl.col("n")).to_numpy()
    factors = row_codes(own, ["base"]), row_codes(own, ["dataset"])
    found = evidence.intervals.interval(totals, ratio, *factors, scale=SHARE)
    low = found.low
    if found.estimate > 1 - 1e-9:
        low = ((1 - evidence.intervals.confidence) / 2) ** (1 / bases)
        found = Interval(1.0, low, 1.0)
    lift = Interval(*(value / chance for value in (found.estimate, low, found.high)))
    return Found(lift, f"{frame.height} models of {bases} bases", 2.0, units={"bases": bases})


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
    ends = steps.group_by(*key, "dataset", maintain_order=True).agg(
        pl.col("step").first().alias("first"), pl.col("step").last().alias("last")
    )
    factors = row_codes(ends, ["base"]), row_codes(ends, ["dataset"])
    number = evidence.intervals.interval(ends.select("last", "first").to_numpy(), ratio, *factors, scale=LOG)
    return Found(number, f"{int(row_codes(ends, RUN).max()) + 1} runs", high=0.5, units=count_units(ends))


def larger_on_the_rim(evidence: Evidence) -> Found | None:
    """Distance from the mean of the base's models over all texts: the larger sample minus the smaller, alike otherwise.

    Distances are those of the rows of Q (of the scaled scores, where no likelihoods are known), not on the map.
    """
    frame = best_map(evidence.frames["map"]).filter(pl.col("from_middle").is_not_null())
    away = frame.filter(pl.col("dataset") != pl.col("sample")).with_columns(radius=pl.col("from_middle").sqrt())
    key = ["base", "dataset", "recipe", "epoch"]
    sizes = sorted(away["size"].drop_nulls().unique())
    if len(sizes) < 2:
        return None
    small, large = (
        away.filter(pl.col("size") == size).group_by(key).agg(pl.col("radius").mean()) for size in (sizes[0], sizes[-1])
    )
    pairs = large.join(small, on=key, suffix="_small").sort(key)
    if pairs.is_empty():
        return None
    factors = row_codes(pairs, ["base"]), row_codes(pairs, ["dataset"])
    mean = evidence.intervals.mean((pairs["radius"] - pairs["radius_small"]).to_numpy(), *factors)
    n = f"{pairs.height} pairs, {sizes[-1]:,} against {sizes[0]:,} rows"
    return Found(mean, n, 0.0, units=count_units(pairs))


def lora_near_full(evidence: Evidence) -> Found | None:
    """Paired difference of score between LoRA and full fine-tuning: over all benchmarks, and on each."""
    levels = {"factor": "method", "first": "full", "second": "lora"}
    row = _row(evidence.frames["contrasts"], **levels, base=None, benchmark=None, matched=None)
    if row is None:
        return None
    single = evidence.frames["contrasts"].filter(pl.col("benchmark").is_not_null(), **levels)
    single = single.sort("difference", "benchmark", "shots", "metric")
    beyond = (pl.col("ci_low") >= NEAR) | (pl.col("ci_high") <= -NEAR)
    far = single.filter(beyond & (pl.col("q") < CLEAR_Q))
    ends = "; ".join(
        f"{one['benchmark']} ({one['shots']} shots) {_said(one, 'difference')}" for one in _ends_of(single)
    )
    beside = f"benchmark by benchmark from {ends.replace('; ', ' to ')}; {far.height} of {single.height} lie beyond"
    doubt = f"benchmark by benchmark: {far.height} of {single.height} lie beyond ±{NEAR}, which a mean hides"
    n = f"{row['n_pairs']} pairs of {row['n_bases']} bases"
    found = Found(_interval(row, "difference"), n, -NEAR, NEAR, _of_row(row), beside)
    return found if found.by_interval != "confirmed" or far.is_empty() else replace(found, doubt=doubt)


def _ends_of(frame: pl.DataFrame) -> list[Row]:
    """The first and the last row."""
    return [frame.row(i, named=True) for i in ((0, -1) if frame.height > 1 else range(frame.height))]


def lora_early(evidence: Evidence) -> Found | None:
    """Mean absolute gain of LoRA over that of full fine-tuning after the first epoch of one mixture.

    Noise of items enlarges both and so draws the ratio to 1: beside it stands the ratio of root mean squares without
    that noise.
    """
    gains = evidence.frames["whole gains"].filter(
        (pl.col("epoch") == 1) & pl.col("held_out").is_null() & (pl.col("dataset") == pl.col("sample"))
    )
    key = ["base", "sample", "schedule", *MEASURE]
    gain, stderr = pl.col("gain") / WIDTH, pl.col("stderr") / WIDTH
    size = (
        gains.with_columns(size_of=gain.abs(), clean=gain**2 - stderr**2)
        .group_by(*key, "method")
        .agg(pl.col("size_of").mean(), pl.col("clean").mean())
    )
    sides = [size.filter(pl.col("method") == method) for method in ("full", "lora")]
    pairs = sides[1].join(sides[0], on=key, suffix="_full", nulls_equal=True).sort(key)
    if pairs.is_empty():
        return None
    factors = row_codes(pairs, ["base"]), row_codes(pairs, ["sample"])
    number = evidence.intervals.interval(pairs.select("size_of", "size_of_full").to_numpy(), ratio, *factors, scale=LOG)
    n = f"{pairs.height} pairs of {pairs['base'].n_unique()} bases"
    clean = pairs.drop_nulls(["clean", "clean_full"]).select(pl.col("clean", "clean_full").sum()).row(0)
    known = clean[0] and clean[1] and min(clean) > 0
    beside = f"root mean squares without noise of items: {(clean[0] / clean[1]) ** 0.5:.3f}" if known else ""
    return Found(number, n, *ALIKE, units={"bases": pairs["base"].n_unique()}, beside=beside)


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
        units={"bases": row["n_bases"]},
    )
