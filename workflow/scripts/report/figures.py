"""The figures of the report, in the order of its questions."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from sft_atlas.report import figures_data, figures_factors, figures_gains, figures_layers, style
from sft_atlas.report.results import Results


@dataclass(frozen=True)
class Plan:
    """One figure: how it is drawn, and the sentence that says what it shows and how sure that is."""

    name: str
    title: str
    tables: tuple[str, ...]
    """Tables it is made from; without rows in them there is no figure."""
    draw: Callable[[Results], Figure | None]
    explain: Callable[[Results], str]


@dataclass(frozen=True)
class Drawn:
    """A finished figure: file name, title, source tables, sentence, and its bytes; no bytes where data lack."""

    name: str
    title: str
    tables: tuple[str, ...]
    sentence: str
    svg: str = ""
    png: bytes = b""


QUESTIONS: dict[str, tuple[Plan, ...]] = {
    "How do base models, data and benchmarks interact?": (
        Plan(
            "gains_mean",
            "What each dataset does to each benchmark",
            ("effects",),
            figures_gains.gains_mean,
            lambda results: f"{figures_gains.explain_gains(results)} {figures_gains.explain_matched(results)}".strip(),
        ),
        Plan(
            "gains_bases",
            "The same, for each base model",
            ("effects",),
            figures_gains.gains_bases,
            figures_gains.explain_bases,
        ),
        Plan(
            "scores",
            "Where scores start and where they end",
            ("scores",),
            figures_gains.scores,
            figures_gains.explain_scores,
        ),
    ),
    "Which properties of the data predict the gain?": (
        Plan(
            "perplexity",
            "Perplexity of the data under the base model",
            ("gains", "predictors", "correlations"),
            figures_data.perplexity,
            figures_data.explain_perplexity,
        ),
        Plan(
            "predictors",
            "All properties side by side",
            ("correlations",),
            figures_data.predictors,
            figures_data.explain_predictors,
        ),
        Plan(
            "similarity",
            "Similarity of data and benchmark",
            ("gains", "predictors", "correlations"),
            figures_data.similarity,
            figures_data.explain_similarity,
        ),
    ),
    "Which layers change, and which change goes with the gain?": (
        Plan(
            "layers", "How much each layer changes", ("layers",), figures_layers.profile, figures_layers.explain_profile
        ),
        Plan(
            "layer_correlations",
            "Whose change goes with the gain",
            ("layer_correlations",),
            figures_layers.correlation,
            figures_layers.explain_correlation,
        ),
    ),
    "What do training method, sample size and seed do?": (
        Plan(
            "methods",
            "Training methods and sample sizes, pair by pair",
            ("methods",),
            figures_factors.methods,
            figures_factors.explain_methods,
        ),
        Plan(
            "seeds",
            "Gains beside the noise of the training seed",
            ("seeds", "effects"),
            figures_factors.seeds,
            figures_factors.explain_seeds,
        ),
    ),
}


def draw(results: Results) -> dict[str, list[Drawn]]:
    """All figures, by question."""
    with style.context():
        return {question: [_draw(plan, results) for plan in plans] for question, plans in QUESTIONS.items()}


def _draw(plan: Plan, results: Results) -> Drawn:
    """One figure, or the reason why there is none."""
    empty = [name for name in plan.tables if results[name].is_empty()]
    if empty:
        return Drawn(plan.name, plan.title, plan.tables, f"Not shown: table {' and table '.join(empty)} has no rows.")
    drawing = plan.draw(results)
    if drawing is None:
        return Drawn(plan.name, plan.title, plan.tables, "Not shown: no row has the values that this figure needs.")
    return Drawn(plan.name, plan.title, plan.tables, plan.explain(results), style.svg(drawing), style.png(drawing))
