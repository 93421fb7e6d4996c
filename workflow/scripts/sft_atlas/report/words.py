"""What the newer figures say, in a sentence with numbers, from the tables alone."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis.interactions import LAYOUTS
from sft_atlas.analysis.prediction import hits
from sft_atlas.report import text
from sft_atlas.report.results import Results

VERDICTS = ("confirmed", "contradicted", "open")
FEW = 3
"""With fewer bases or datasets no claim can be decided."""


def _estimate(row: dict[str, Any], name: str = "coefficient", form: Any = text.number) -> str:
    return f"{form(row[name])} {text.interval(row['ci_low'], row['ci_high'], form)}"


def free(results: Results) -> str:
    """The strongest base-free effect."""
    cells = results["free"].filter(~pl.col("benchmark").str.contains("/"))
    means = cells.group_by("dataset", "benchmark", "shots", "metric").agg(
        pl.col("effect").mean(), pl.col("base").n_unique()
    )
    order = ["effect", "dataset", "benchmark", "shots"]
    top = means.sort(order, descending=[True, False, False, False]).row(0, named=True)
    label = results.labels[top["benchmark"], top["shots"], top["metric"]]
    return text.sentence(
        "a run's score minus the mean over datasets of its base: independent of the base's own score. The "
        "greatest mean is "
        f"that of {top['dataset']} on {label}: {text.points(top['effect'])} points, n = "
        f"{text.count(top['base'], 'base')}"
    )


def base_similarity(results: Results) -> str:
    """Family and language."""
    frame = results["similarity"]
    pairs = frame.filter(pl.col("scope") == "pair")
    if pairs.is_empty():
        return text.sentence("no two bases have enough cells in common (n = 0 pairs)")
    parts = [
        f"two bases correlate by {text.number(text.mean(pairs['coefficient']))} on average, n = "
        f"{text.count(pairs.height, 'pair')}"
    ]
    for label in ("family", "language"):
        row = frame.filter(pl.col("scope") == f"difference by {label}").to_dicts()
        if row:
            parts.append(
                f"pairs of one {label} by {_estimate(row[0])} more than others (permuted labels: p "
                f"{text.probability(row[0]['p'])})"
            )
    return text.sentence("; ".join(parts))


def agreement(results: Results) -> str:
    """Where bases agree most and least."""
    means = results["agreement"].filter(pl.col("base").is_null())
    single = means.filter(pl.col("benchmark").is_not_null() & pl.col("coefficient").is_not_null()).sort(
        "coefficient", "benchmark", "shots"
    )
    if single.is_empty():
        return text.sentence("no two bases have enough datasets in common (n = 0 pairs)")

    def label(row: dict[str, Any]) -> str:
        return f"{results.labels[row['benchmark'], row['shots'], row['metric']]} ({_estimate(row)})"

    low, high = single.row(0, named=True), single.row(-1, named=True)
    whole = means.filter(pl.col("benchmark").is_null()).to_dicts()
    said = f"over all benchmarks the mean correlation is {_estimate(whole[0])}; " if whole else ""
    return text.sentence(
        f"{said}bases agree most on {label(high)} and least on {label(low)}, n = {text.count(high['n_bases'], 'base')}"
    )


def pca(results: Results) -> str:
    """How many components it takes."""
    frame = results["pca"].filter(pl.col("cumulative").is_not_null()).sort("scope", "component")
    layout = next((name for name in LAYOUTS if name in set(frame["layout"])), None)
    parts = []
    for (scope,), part in frame.filter(layout=layout).group_by("scope", maintain_order=True):
        reached = part.filter(pl.col("cumulative") >= 0.9)["component"].to_list()
        needed = min(reached, default=None)
        five = part.filter(pl.col("component") == min(5, part.height)).row(0, named=True)
        parts.append(
            f"with {scope} as columns (n = {five['n_columns']} columns, {five['n_rows']} rows; {layout}) the first "
            f"{five['component']} components carry {_estimate(five, 'cumulative')} of the variance, shuffled columns "
            f"{text.number(five['chance'])}, and 0.90 takes {needed}"
        )
    return text.sentence("; ".join(parts))


def loadings(results: Results) -> str:
    """What the first component is."""
    frame = results["pca"].filter((pl.col("scope") == "benchmarks") & (pl.col("component") == 1))
    first = frame.filter(pl.col("loading").is_not_null()).sort(pl.col("loading").abs(), descending=True)
    if first.is_empty():
        return text.sentence("no loadings (n = 0 benchmarks)")
    names = [
        f"{results.labels[r['benchmark'], r['shots'], r['metric']]} ({text.number(r['loading'])})"
        for r in first.head(3).to_dicts()
    ]
    return text.sentence(f"component 1 loads most on {', '.join(names)}, n = {text.count(first.height, 'benchmark')}")


def variance(results: Results) -> str:
    """Mean shares over benchmarks."""
    frame = results["variance"].filter(~pl.col("benchmark").str.contains("/"))
    means = dict(frame.group_by("factor").agg(pl.col("share").mean()).iter_rows())
    shares = ", ".join(
        f"{means[factor]:.0%} with the {word}" for factor, word in (("base", "base"), ("dataset", "dataset"))
    )
    count = frame.select("benchmark", "shots", "metric").n_unique()
    return text.sentence(
        f"of the variance of gains go, on average over n = {text.count(count, 'benchmark')}, {shares}, "
        f"{means['rest']:.0%} with neither alone: that rest is what base and dataset do together, and noise"
    )


def benchmarks(results: Results) -> str:
    """Most alike benchmarks."""
    frame = results["benchmarks"].filter(pl.col("coefficient").is_not_null()).sort("coefficient", "benchmark", "shots")
    if frame.is_empty():
        return text.sentence("no two benchmarks have enough runs in common (n = 0 pairs)")
    top = frame.row(-1, named=True)
    one = results.labels[top["benchmark"], top["shots"], top["metric"]]
    other = results.labels[top["other_benchmark"], top["other_shots"], top["other_metric"]]
    corrected = "" if top["corrected"] is None else f", {text.number(top['corrected'])} corrected for noise of items"
    return text.sentence(
        f"{one} and {other} go together most: {_estimate(top)}{corrected}, n = {text.count(top['n_runs'], 'run')}; "
        f"the mean over {text.count(frame.height, 'pair')} is {text.number(text.mean(frame['coefficient']))}"
    )


def prediction(results: Results) -> str:
    """Skill over all bases, by model."""
    rows = results["prediction"].filter(pl.col("base").is_null())
    parts = []
    for row in rows.iter_rows(named=True):
        clear = "" if not text.spans_zero(row) else ", not clearly better than the benchmark's mean"
        parts.append(
            f"from {row['model']}: skill {_estimate(row, 'skill')}{clear}, error "
            f"{text.points(row['error']).lstrip('+')} points"
        )
    cells, bases = int(rows["n_cells"].to_numpy().max()), int(rows["n_bases"].to_numpy().max())
    return text.sentence(
        f"gains of a base that was left out, predicted {'; '.join(parts)} (n = {cells:,} cells of {bases} bases)"
    )


def recommend(results: Results) -> str:
    """How often the recommended dataset would have been right."""
    cases = hits(results["recommend"])
    new = results["recommend"].filter(pl.col("observed").is_null())["base"].n_unique()
    if cases.is_empty():
        return text.sentence(
            f"recommendations for {text.count(new, 'base')} that were never tuned; n = 0 known cases to check them"
        )
    share, chance, claimed = (float(np.mean(cases[name].to_numpy())) for name in ("hit", "chance", "claimed"))
    tied = int(cases["tied"].sum())
    said = f"; in {tied} of these several datasets tie for best, which is no hit" if tied else ""
    return text.sentence(
        f"the dataset ranked first was the best one in {share:.0%} of n = {text.count(cases.height, 'case')} (a base "
        f"left out, one benchmark), where chance gives {chance:.0%}, the model itself claims {claimed:.0%}{said}"
    )


def layer_peaks(results: Results) -> str:
    """Position of the peak."""
    rows = results["layer_peaks"].filter(pl.col("target") == "mean_gain", module="all", change="relative")
    there = results["layer_correlations"].filter(
        scope="within_base", target="mean_gain", module="all", change="relative"
    )
    known = {(row["method"], row["depth"]): row for row in there.iter_rows(named=True)}
    parts = []
    for row in rows.sort("method").iter_rows(named=True):
        clear = text.is_clear(known[row["method"], row["depth"]]) if (row["method"], row["depth"]) in known else False
        parts.append(
            f"under {row['method']} the correlation of change with gain is greatest at depth {_estimate(row, 'depth')} "
            f"(ρ = {text.number(row['coefficient'])} there, {'clear' if clear else 'not clear, so its place is open'}; "
            f"n = {text.count(row['n_runs'], 'run')})"
        )
    return text.sentence("; ".join(parts) or "no peak could be placed (n = 0 runs)")


def layer_agreement(results: Results) -> str:
    """Where bases agree most."""
    rows = results["layer_agreement"].filter(module="all").sort("coefficient", "depth")
    if rows.is_empty():
        return text.sentence("no two bases have samples in common (n = 0 pairs)")
    top = rows.row(-1, named=True)
    return text.sentence(
        f"bases rank samples most alike by the change of layers at depth {text.number(top['depth'])} "
        f"(ρ = {text.number(top['coefficient'])}), n = {text.count(top['n_pairs'], 'pair')} of bases"
    )


def epochs(results: Results) -> str:
    """First and last epoch of each setting."""
    frame = results["epochs"].filter(pl.col("base").is_null() & pl.col("benchmark").is_null())
    parts = []
    for setting, part in frame.sort("epoch").group_by("method", "schedule", "size", maintain_order=True):
        first, last = part.row(0, named=True), part.row(-1, named=True)
        size = f"{setting[2]:,} rows" if setting[2] else "unknown size"
        parts.append(
            f"{setting[0]}, {setting[1]}, {size}: from {text.points(first['gain'])} after epoch {first['epoch']} to "
            f"{text.points(last['gain'])} points after epoch {last['epoch']} (n = {text.count(last['n_runs'], 'run')})"
        )
    return text.sentence("; ".join(sorted(parts)))


def leave_one_out(results: Results) -> str:
    """The dataset that adds most and least, and to which mixture."""
    means = results["leave_one_out"].filter(pl.col("benchmark").is_null())
    key = ["mixture", "held_out"]
    order = means.group_by(key).agg(pl.col("contribution").mean()).sort("contribution", *reversed(key))
    low, high = order.row(0, named=True), order.row(-1, named=True)
    several = means["mixture"].n_unique() > 1
    most, least = (row["mixture"] if several else "the mixture" for row in (high, low))
    return text.sentence(
        f"{high['held_out']} adds most to {most} ({text.points(high['contribution'])} points over all benchmarks), "
        f"{low['held_out']} least{f' to {least}' if several else ''} ({text.points(low['contribution'])}), "
        f"n = {text.count(means.height, 'mixture')} without a dataset"
    )


def crosslingual(results: Results) -> str:
    """Correlations within bases."""
    rows = results["crosslingual"].filter((pl.col("scope") == "within base") & pl.col("coefficient").is_not_null())
    parts = [
        f"{row['benchmark']} and {row['other']}: ρ = {_estimate(row)}, n = {text.count(row['n_runs'], 'run')}"
        for row in rows.iter_rows(named=True)
    ]
    return text.sentence("within bases, " + "; ".join(parts) if parts else "no counterparts within bases (n = 0)")


def sensitivity(results: Results) -> str:
    """How many mean effects the suspect cells change."""
    changed = results["sensitivity"].height
    total = results["effects"].filter(pl.col("scope") == "mean").height
    gone = results["sensitivity"].filter(pl.col("verdict") == "gone").height
    return text.sentence(
        f"without the suspect cells, {changed - gone} mean effects are judged otherwise than with them and {gone} "
        "cannot be computed; "
        f"n = {text.count(total, 'mean effect')} remain"
    )


def audit(results: Results) -> str:
    """Findings by class."""
    frame = results["audit"]
    if frame.is_empty():
        return "The audit found nothing to doubt in the scores."
    counts = Counter(frame["fault"].to_list())
    listed = ", ".join(f"{fault} ({count})" for fault, count in counts.items())
    excluded = results["suspects"].filter("excluded").select(pl.exclude("finding", "fault", "excluded")).n_unique()
    scores = results["scores"]["score"].count()
    return text.sentence(
        f"the audit made {text.count(frame.height, 'finding')}: {listed}. {excluded:,} of {scores:,} scores are "
        "left out of every analysis here"
    )


def claims(results: Results) -> str:
    """Tally of claims."""
    frame = results["claims"]
    counts = Counter(frame["verdict"].to_list())
    changed = int(frame["changed"].sum())
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    few = ""
    if not decides_claims(results):
        few = f" (too few: {text.count(len(results.bases), 'base')} and {text.count(_datasets(results), 'dataset')})"
    return text.sentence(
        f"of {text.count(frame.height, 'claim')} of the published study, {listed}{few}; the suspect cells change "
        f"{text.count(changed, 'verdict')}"
    )


def decides_claims(results: Results) -> bool:
    """Whether a study is large enough to say anything about the published study's claims."""
    few = min(len(results.bases), _datasets(results)) < FEW
    return results["claims"].height > 0 and results["scores"].height > 0 and not few


def _datasets(results: Results) -> int:
    """Datasets that were trained on, mixtures not counted."""
    tuned = results["scores"].filter(pl.col("dataset") != pl.col("sample"))
    return max(tuned["dataset"].n_unique(), results["free"]["dataset"].n_unique())
