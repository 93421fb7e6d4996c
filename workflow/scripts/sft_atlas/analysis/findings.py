"""The analysis of a study: result tables in, findings about them out."""

from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.audit import without_suspects
from sft_atlas.analysis.cells import MEASURE, free_effects, whole_benchmarks
from sft_atlas.analysis.claims import claims
from sft_atlas.analysis.correlations import correlations
from sft_atlas.analysis.decisions import Evidence
from sft_atlas.analysis.dimensions import dimension_changes
from sft_atlas.analysis.effects import effects
from sft_atlas.analysis.factors import contrasts, seeds
from sft_atlas.analysis.interactions import agreement, benchmarks, cube, pca, similarity, variance
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.layers import layer_agreement, layer_correlations, layer_peaks
from sft_atlas.analysis.maps import likelihood_map, model_map
from sft_atlas.analysis.prediction import cells, partials, prediction, recommend
from sft_atlas.analysis.selection import selection
from sft_atlas.analysis.training import crosslingual, epochs, leave_one_out
from sft_atlas.study.analyses import AnalysisOptions

Frames = dict[str, pl.DataFrame]
CLEANED = ("scores", "gains", "whole scores", "whole gains")
"""Frames that suspect cells are taken from; `whole` ones hold only benchmarks that may be averaged."""


def analyse(folder: Path, out: Path, options: AnalysisOptions, labels: dict[str, Any] | None = None) -> None:
    """Read the tables in `folder` and write each of tables.OUTPUTS but the audit's to `out`, as Parquet and CSV.

    Cells that table `suspects` excludes are left out; claims and effects are computed with them too, and compared. A
    table that is absent counts as empty, and an analysis without input writes its table without rows. The same tables
    and options give the same bytes. Raises tables.TableError for a table that breaks its schema.
    """
    labels = labels or {"bases": {}, "benchmarks": {}}
    given = {name: tables.read(folder, name) for name in tables.INPUTS}
    suspects = tables.read(folder, "suspects")
    # suspect cells are scores; likelihoods are ours, and placed once
    given["likelihood map"] = likelihood_map(given["likelihoods"], given["dimensions"])
    measures = whole_benchmarks(given["scores"])
    given |= {f"whole {name}": given[name].join(measures, on=MEASURE, how="semi") for name in ("scores", "gains")}
    clean = {name: without_suspects(frame, suspects) if name in CLEANED else frame for name, frame in given.items()}
    results = compute(clean, options, labels)
    everything = results if suspects.filter("excluded").is_empty() else compute(given, options, labels, for_claims=True)
    intervals = Jackknife(options.confidence)
    results["claims"] = claims(
        Evidence(clean | results, labels, intervals), Evidence(given | everything, labels, intervals)
    )
    results["sensitivity"] = sensitivity(results["effects"], everything["effects"])
    results["selection"] = selection(clean["gains"], labels.get("selection"), options.confidence)
    for name, frame in results.items():
        tables.write(frame, out, name)


def compute(given: Frames, options: AnalysisOptions, labels: dict[str, Any], for_claims: bool = False) -> Frames:
    """Every analysis of one set of cells; `for_claims` leaves out what neither claims nor effects need."""
    intervals = Jackknife(options.confidence)
    gains, scores = given["whole gains"], given["whole scores"]
    predictors, layers = given["predictors"], given["layers"]
    free = free_effects(scores)
    data = cube(free)
    results = {
        "effects": effects(given["gains"], intervals),
        "free": tables.build("free", free.select(list(tables.schema("free"))).to_dicts()),
        "correlations": correlations(gains, predictors, options),
        "contrasts": contrasts(scores, gains, intervals),
        "layer_correlations": layer_correlations(layers, gains, options),
        "layer_peaks": layer_peaks(layers, gains, options),
        "similarity": similarity(data, labels, intervals, options.permutations, options.seed),
        "pca": pca(data, intervals, options.seed),
        "crosslingual": crosslingual(gains, scores, labels, intervals),
        "map": tables.arrange(pl.concat([given["likelihood map"], model_map(scores, gains)]), "map"),
    }
    if for_claims:
        return results
    features = cells(gains, predictors)
    return results | {
        "layer_agreement": layer_agreement(layers),
        "dimension_changes": dimension_changes(given["dimensions"], intervals),
        "seeds": seeds(gains, intervals),
        "agreement": agreement(data, intervals),
        "variance": variance(gains, intervals),
        "benchmarks": benchmarks(free, gains, intervals),
        "partials": partials(features, intervals),
        "prediction": prediction(features, intervals),
        "recommend": recommend(features, predictors, options),
        "epochs": epochs(gains, intervals),
        "leave_one_out": leave_one_out(scores, labels.get("left_out_of")),
    }


def sensitivity(clean: pl.DataFrame, everything: pl.DataFrame) -> pl.DataFrame:
    """Table `sensitivity`: mean effects whose verdict the suspect cells change."""
    key = ["dataset", "method", "size", *MEASURE]
    columns = ["gain", "ci_low", "ci_high"]
    with_all, without = (
        frame.filter(pl.col("scope") == "mean").select(*key, *columns) for frame in (everything, clean)
    )
    both = with_all.join(without, on=key, how="left", suffix="_clean", nulls_equal=True)
    rows = []
    for row in both.iter_rows(named=True):
        own = [row[f"{name}_clean"] for name in columns]
        verdicts = [_verdict(*own), _verdict(*(row[name] for name in columns))]
        if verdicts[0] != verdicts[1]:
            ends = dict(zip(columns, own, strict=True)) | {f"{name}_all": row[name] for name in columns}
            rows.append({name: row[name] for name in key} | ends | {"verdict": verdicts[0], "verdict_all": verdicts[1]})
    return tables.build("sensitivity", rows)


def _verdict(gain: float | None, low: float | None, high: float | None) -> str:
    """The sign of an effect, where its interval tells."""
    if gain is None:
        return "gone"
    if low is None or high is None or low <= 0 <= high:
        return "open"
    return "above 0" if low > 0 else "below 0"
