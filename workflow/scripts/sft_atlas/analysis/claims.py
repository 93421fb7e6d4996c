"""What the published study reported, claim by claim: confirmed, contradicted or open, with the number that says so.

A claim is *confirmed* when its whole interval lies where the claim says, *contradicted* when the whole interval lies
elsewhere, and *open* else: then column `decides` says what would decide it. How each is decided stands in decisions.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from sft_atlas.analysis import decisions as decide
from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import known
from sft_atlas.analysis.decisions import (
    ALIKE,
    FEW_COMPONENTS,
    LITTLE,
    MOST_VARIANCE,
    NEAR,
    PARTING,
    PEAK,
    TOGETHER,
    Evidence,
    Found,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim: its question, words, rule in words, unit, and how it is decided; None where it cannot be."""

    name: str
    question: int
    statement: str
    rule: str
    unit: str
    decide: Callable[[Evidence], Found | None]
    needs: str


def claims(clean: Evidence, everything: Evidence) -> pl.DataFrame:
    """Table `claims`: every claim without the cells that the audit suspects, and beside it with them."""
    rows = []
    for claim in CLAIMS:
        first, second = claim.decide(clean), claim.decide(everything)
        verdicts = [found.verdict if found else "open" for found in (first, second)]
        rows.append(
            {
                **{"claim": claim.name, "question": claim.question, "statement": claim.statement},
                **{"rule": claim.rule, "unit": claim.unit},
                **_columns(first, ""),
                **_columns(second, "_all"),
                **{"verdict": verdicts[0], "verdict_all": verdicts[1], "changed": verdicts[0] != verdicts[1]},
                "beside": (first.beside or None) if first else None,
                "decides": first.decides if first else f"needs {claim.needs}",
            }
        )
    return tables.build("claims", rows)


def _columns(found: Found | None, suffix: str) -> Row:
    if found is None:
        return {f"n{suffix}": None}
    ends = {"number": found.number.estimate, "ci_low": found.number.low, "ci_high": found.number.high}
    return {f"{name}{suffix}": known(value) for name, value in ends.items()} | {f"n{suffix}": found.n}


CLAIMS = (
    Claim(
        "few components",
        1,
        f"About {FEW_COMPONENTS} components carry over {MOST_VARIANCE:.0%} of the variance of gains over benchmarks",
        f"first {FEW_COMPONENTS} components above {MOST_VARIANCE}, every number of shots a column, columns scaled to "
        "equal variance; open where another layout gives another verdict",
        "cumulative share",
        decide.few_components,
        "base-free effects on two benchmarks",
    ),
    Claim(
        "few patterns",
        1,
        f"About {FEW_COMPONENTS} components carry over {MOST_VARIANCE:.0%} of the variance of gains over base models",
        f"first {FEW_COMPONENTS} components above {MOST_VARIANCE}, every number of shots a row, benchmarks and columns "
        "scaled to equal variance; open where another layout gives another verdict",
        "cumulative share",
        decide.few_patterns,
        "base-free effects of more bases",
    ),
    Claim(
        "family",
        1,
        "Base models of one family gain alike",
        "mean correlation of pairs of one family minus that of others above 0",
        "difference of correlations",
        decide.same_family,
        "labels of families, two bases of one family",
    ),
    Claim(
        "language",
        1,
        "The language of pre-training matters little",
        f"mean correlation of pairs of one language minus that of others below {LITTLE}",
        "difference of correlations",
        decide.language_little,
        "labels of languages",
    ),
    Claim(
        "code for maths",
        1,
        "Code data helps mathematics",
        "score on maths after code data minus after data that trains neither, above 0",
        "fraction",
        decide.code_helps_maths,
        "datasets of code and benchmarks of maths",
    ),
    Claim(
        "perplexity",
        2,
        "Gain falls with the perplexity of the data under the base",
        "rank correlation within base and benchmark below 0",
        "rank correlation",
        decide.perplexity_negative,
        "perplexities (table predictors)",
    ),
    Claim(
        "best predictor",
        2,
        "Perplexity is a better predictor than length and similarity",
        "its rank correlation beyond the next one's, above 0",
        "difference of rank correlations",
        decide.perplexity_best,
        "perplexities, lengths and similarities (table predictors)",
    ),
    Claim(
        "upper layers",
        3,
        "Change grows towards the upper layers",
        "relative change of the upper half over the lower half above 1",
        "ratio",
        decide.change_grows,
        "changes of weights (table layers)",
    ),
    Claim(
        "peak depth",
        3,
        "The correlation of change with gain peaks near depth 0.6",
        f"depth of the peak within {PEAK[0]}..{PEAK[1]}; open unless the correlation there is clear",
        "relative depth",
        decide.peak_in_the_middle,
        "changes of weights (table layers)",
    ),
    Claim(
        "dimension",
        3,
        "Intrinsic dimension parts from the base's from depth 0.6 on",
        f"size of its change from depth {PARTING} on over that below, above 1",
        "ratio",
        decide.dimension_parts,
        "representations of texts (`likelihoods` in the study)",
    ),
    Claim(
        "clusters",
        4,
        "Models cluster by base on the map",
        "nearest neighbours by all texts (or scores) of one base more than 2 times as often as by chance",
        "times chance",
        decide.clusters_by_base,
        "likelihoods or scores of three bases",
    ),
    Claim(
        "convergence",
        4,
        "Epochs converge",
        "mean change of score in the last epoch over that in the second below 0.5",
        "ratio",
        decide.epochs_converge,
        "runs that keep four epochs",
    ),
    Claim(
        "rim",
        4,
        "Models of larger samples lie on the rim of the map",
        "distance from the mean of the base's models over all texts (or scores), largest minus smallest sample, "
        "above 0",
        "root mean square distance",
        decide.larger_on_the_rim,
        "two sample sizes of one base and dataset",
    ),
    Claim(
        "LoRA near full",
        4,
        "LoRA comes near full fine-tuning",
        f"paired difference of scores within ±{NEAR} over all benchmarks, and none clearly beyond",
        "fraction",
        decide.lora_near_full,
        "both methods on one base and sample",
    ),
    Claim(
        "LoRA early",
        4,
        "After one epoch the effect of LoRA equals that of full fine-tuning",
        f"ratio of mean absolute gains within {ALIKE[0]}..{ALIKE[1]}",
        "ratio",
        decide.lora_early,
        "first epochs of a mixture under both methods",
    ),
    Claim(
        "languages",
        4,
        "Gains on a benchmark and its counterparts in other languages go together",
        f"weakest rank correlation within bases above {TOGETHER}",
        "rank correlation",
        decide.languages_together,
        "counterparts of a benchmark (`translation_of`)",
    ),
)
