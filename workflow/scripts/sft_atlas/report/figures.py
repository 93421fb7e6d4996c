"""The figures of the report, in the order of its questions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from sft_atlas.report import (
    figures_data,
    figures_factors,
    figures_gains,
    figures_layers,
    figures_selection,
    interactive,
    interactive_data,
    interactive_factors,
    interactive_layers,
    interactive_training,
    sentences,
    style,
)
from sft_atlas.report.results import Results

Spec = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One figure: the sentence that says what it shows and how sure that is, and how it is drawn.

    `spec` is for the page (interactive.py), `draw` for print; a figure has one of them or both.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    """Tables it is made from; without rows in them there is no figure."""
    explain: Callable[[Results], str]
    spec: Callable[[Results], Spec | None] | None = None
    draw: Callable[[Results], Figure | None] | None = None


@dataclass(frozen=True)
class Drawn:
    """A finished figure: its source tables, sentence, data for the page, and bytes for print; none where data lack."""

    name: str
    title: str
    tables: tuple[str, ...]
    sentence: str
    spec: Spec | None = None
    svg: str = ""
    png: bytes = b""

    @property
    def shown(self) -> bool:
        """Whether there is anything to see."""
        return bool(self.spec or self.svg)


QUESTIONS: dict[str, tuple[Plan, ...]] = {
    "How do base models, data and benchmarks interact?": (
        Plan(
            "gains_mean",
            "What each dataset does to each benchmark",
            ("effects",),
            lambda results: f"{figures_gains.explain_gains(results)} {figures_gains.explain_matched(results)}".strip(),
            interactive.gains_mean,
            figures_gains.gains_mean,
        ),
        Plan("free", "The same, whatever the base scores by itself", ("free",), sentences.free, interactive.free),
        Plan(
            "gains_bases",
            "What each base model gains",
            ("effects",),
            figures_gains.explain_bases,
            interactive.gains_bases,
            figures_gains.gains_bases,
        ),
        Plan(
            "agreement",
            "Do bases profit from the same data?",
            ("agreement",),
            sentences.agreement,
            interactive.agreement,
        ),
        Plan(
            "base_similarity",
            "Which bases are alike in what helps them",
            ("similarity",),
            sentences.base_similarity,
            interactive.base_similarity,
        ),
        Plan("pca", "How many patterns there are", ("pca",), sentences.pca, interactive.pca),
        Plan("loadings", "What the first patterns are", ("pca",), sentences.loadings, interactive.loadings),
        Plan("variance", "What gains vary with", ("variance",), sentences.variance, interactive.variance),
        Plan(
            "benchmarks", "Which benchmarks go together", ("benchmarks",), sentences.benchmarks, interactive.benchmarks
        ),
        Plan(
            "scores",
            "Where scores start and where they end",
            ("scores",),
            figures_gains.explain_scores,
            interactive.scores,
            figures_gains.scores,
        ),
    ),
    "Which properties of the data predict the gain?": (
        Plan(
            "perplexity",
            "Perplexity of the data under the base model",
            ("gains", "predictors", "correlations"),
            figures_data.explain_perplexity,
            interactive_data.perplexity,
            figures_data.perplexity,
        ),
        Plan(
            "predictors",
            "All properties side by side",
            ("correlations",),
            figures_data.explain_predictors,
            interactive_data.predictors,
            figures_data.predictors,
        ),
        Plan(
            "similarity",
            "Similarity of data and benchmark",
            ("gains", "predictors", "correlations"),
            figures_data.explain_similarity,
            interactive_data.similarity,
            figures_data.similarity,
        ),
        Plan(
            "prediction",
            "Can gains of a new base be predicted?",
            ("prediction",),
            sentences.prediction,
            interactive_data.prediction,
        ),
        Plan("recommend", "What to train a base on", ("recommend",), sentences.recommend, interactive_data.recommend),
    ),
    "Which layers change, and which change goes with the gain?": (
        Plan(
            "layers",
            "How much each layer changes",
            ("layers",),
            figures_layers.explain_profile,
            interactive_layers.layers,
            figures_layers.profile,
        ),
        Plan(
            "layer_correlations",
            "Whose change goes with the gain",
            ("layer_correlations",),
            figures_layers.explain_correlation,
            interactive_layers.layer_correlations,
            figures_layers.correlation,
        ),
        Plan(
            "layer_peaks",
            "Where that relation is strongest",
            ("layer_peaks",),
            sentences.layer_peaks,
            interactive_layers.layer_peaks,
        ),
        Plan(
            "layer_agreement",
            "Do bases change alike?",
            ("layer_agreement",),
            sentences.layer_agreement,
            interactive_layers.layer_agreement,
        ),
        Plan(
            "dimensions",
            "How many dimensions the representations have",
            ("dimensions",),
            interactive_layers.explain_dimensions,
            interactive_layers.dimensions,
        ),
        Plan(
            "dimension_changes",
            "What training does to that",
            ("dimension_changes",),
            interactive_layers.explain_dimension_changes,
            interactive_layers.dimension_changes,
        ),
    ),
    "What do training method, sample size, epochs, language and seed do?": (
        Plan(
            "map",
            "A map of all models",
            ("map",),
            interactive_training.explain_map,
            interactive_training.model_map,
        ),
        Plan(
            "contrasts",
            "Methods, sizes and schedules, pair by pair",
            ("contrasts",),
            figures_factors.explain_contrasts,
            interactive_factors.contrasts,
            figures_factors.contrasts,
        ),
        Plan(
            "curves",
            "Loss while training",
            ("curves",),
            interactive_training.explain_curves,
            interactive_training.curves,
        ),
        Plan("epochs", "Epoch by epoch", ("epochs",), sentences.epochs, interactive_factors.epochs),
        Plan(
            "leave_one_out",
            "What each dataset adds to the mixture",
            ("leave_one_out",),
            sentences.leave_one_out,
            interactive_factors.leave_one_out,
        ),
        Plan(
            "crosslingual",
            "The same questions in other languages",
            ("crosslingual",),
            sentences.crosslingual,
            interactive_factors.crosslingual,
        ),
        Plan(
            "seeds",
            "Gains beside the noise of the training seed",
            ("seeds", "effects"),
            figures_factors.explain_seeds,
            interactive_factors.seeds,
            figures_factors.seeds,
        ),
    ),
}
SEARCH = Plan(
    "selection",
    "Which training settings are best",
    ("selection",),
    figures_selection.explain,
    draw=figures_selection.selection,
)
"""Stands last among the figures of training, in a study that declares a `selection`."""
AUDIT = (
    Plan(
        "sensitivity",
        "Which mean effects hang on suspect cells",
        ("sensitivity",),
        sentences.sensitivity,
        interactive_factors.sensitivity,
    ),
)


NEEDS = {
    "predictors": "perplexity, length and similarity of the training data",
    "correlations": "correlations of these with gains",
    "layers": "changes of weights by layer",
    "layer_correlations": "correlations of these with gains",
    "layer_peaks": "peaks of these correlations",
    "layer_agreement": "changes of weights of two bases",
    "dimensions": "representations of texts (`likelihoods` in the study)",
    "dimension_changes": "representations of texts before and after training",
    "seeds": "runs that differ in their seed only",
    "curves": "losses of training runs",
    "contrasts": "pairs of runs that differ in method, size or schedule only",
    "epochs": "runs that keep several epochs",
    "leave_one_out": "mixtures without one dataset beside the whole one (which of several that is, a table from "
    "elsewhere does not say; its `matrix` does)",
    "crosslingual": "benchmarks with counterparts in another language",
    "prediction": "predictions for bases left out: three bases or more",
    "recommend": "predictions for bases left out: three bases or more",
    "sensitivity": "mean effects that suspect cells change",
}
"""What a table without rows would say; a table of scores cannot hold the first ones."""


def draw(results: Results) -> dict[str, list[Drawn]]:
    """All figures, by question; those of the audit under `audit`."""
    asked = QUESTIONS | {"audit": AUDIT}
    if results["selection"].height:
        training = list(QUESTIONS)[-1]
        asked = asked | {training: (*asked[training], SEARCH)}
    with style.context():
        return {question: [_draw(plan, results) for plan in plans] for question, plans in asked.items()}


def _draw(plan: Plan, results: Results) -> Drawn:
    """One figure, or the reason why there is none."""
    empty = [name for name in plan.tables if results[name].is_empty()]
    if empty:
        lacking = " and ".join(f"{NEEDS[name]} (table {name})" if name in NEEDS else f"table {name}" for name in empty)
        return Drawn(plan.name, plan.title, plan.tables, f"Not shown: these results hold no rows of {lacking}.")
    drawing = plan.draw(results) if plan.draw else None
    spec = plan.spec(results) if plan.spec else None
    if spec is None and drawing is None:
        return Drawn(plan.name, plan.title, plan.tables, "Not shown: no row has the values that this figure needs.")
    bytes_ = (style.svg(drawing), style.png(drawing)) if drawing is not None else ("", b"")
    named = None if spec is None else spec | {"name": plan.name, "title": plan.title}
    return Drawn(plan.name, plan.title, plan.tables, plan.explain(results), named, *bytes_)
