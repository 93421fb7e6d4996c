"""Question 4: the map of all models, by the log-likelihoods of texts, and by gains and scores."""

from typing import Any

import numpy as np
import polars as pl
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import known
from sft_atlas.analysis.columns import CELL
from sft_atlas.analysis.statistics import Array, components

Row = dict[str, Any]
LIKELIHOODS = "t-SNE of log-likelihoods"
SCORES = "PCA of scores"
FLOOR = 0.02
"""Quantile of all log-likelihoods that smaller ones are raised to."""
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours each model keeps; a ninth of the others where models are few."""
LEAST_MODELS = 5
DESCRIPTION = ("dataset", "held_out", "size", "method", "schedule")


@threadpool_limits.wrap(limits=1)
def likelihood_map(likelihoods: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Rows of table `map` from tables `likelihoods` and `dimensions` (which describes the models).

    Every model is a point: by t-SNE (van der Maaten and Hinton 2008) of the rows of Q (`centred`), and by their first
    two principal components. Distances and `nearest` come from the rows of Q themselves. All of it runs on one
    thread: sums in another order would move last digits, and t-SNE makes those large.
    """
    cells, values = _wide(likelihoods, pl.concat_str("benchmark", pl.lit("\n"), "item"), "log_likelihood")
    if len(cells) < LEAST_MODELS or values.shape[1] < 2:
        return tables.empty("map")
    q = centred(values)
    facts = _facts(cells, q)
    share, _, place = components(q)
    rows = []
    kinds = ((LIKELIHOODS, tsne(place), (np.nan, np.nan)), ("PCA of log-likelihoods", place[:, :2], share[:2]))
    for kind, points, shares in kinds:
        about = {"kind": kind, "x_share": known(shares[0]), "y_share": known(shares[1])}
        rows += _rows(cells, models, points, about, facts)
    return tables.build("map", rows)


def _facts(cells: pl.DataFrame, values: Array) -> list[Row]:
    """Where each model lies among the others, by squared distances of rows over the columns.

    `from_base`: from its base; `from_middle`: from the mean of the tuned models of its base; `nearest`: the base of the
    nearest model, its own run left out.
    """
    squares = np.square(values).sum(axis=1)
    distance = np.maximum(0.0, squares[:, None] + squares[None] - 2 * values @ values.T) / values.shape[1]
    base, tuned = cells["base"].to_numpy(), cells["sample"].is_not_null().to_numpy()
    place_of_base = {name: i for i, name in enumerate(base) if not tuned[i]}
    middle = {name: values[(base == name) & tuned].mean(axis=0) for name in np.unique(base[tuned])}
    run = cells.select(pl.struct("base", "sample", "recipe", "seed").rank("dense")).to_series().to_numpy()
    others = np.where((run[:, None] == run[None]) & tuned[:, None] & tuned[None], np.inf, distance)
    np.fill_diagonal(others, np.inf)
    nearest = others.argmin(axis=1)
    return [
        {
            "from_base": float(distance[i, place_of_base[base[i]]]) if base[i] in place_of_base else None,
            "from_middle": float(np.square(values[i] - middle[base[i]]).mean()) if tuned[i] else None,
            "nearest": str(base[nearest[i]]) if np.isfinite(others[i, nearest[i]]) else None,
        }
        for i in range(len(base))
    ]


def best_map(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of table `map` that come nearest to the published map: of log-likelihoods, else of scores."""
    return table.filter(pl.col("kind") == (LIKELIHOODS if LIKELIHOODS in table["kind"] else SCORES))


def centred(likelihoods: Array) -> Array:
    """Q = L - row mean - column mean + mean, after raising the lowest entries of L (models x texts) to a floor.

    Oyama et al. 2025 (arXiv 2502.16173), section 3: the squared distance of two rows of Q over the number of texts
    estimates how far the two models diverge.
    """
    raised = np.maximum(likelihoods, np.quantile(likelihoods, FLOOR))
    return np.asarray(
        raised - raised.mean(axis=1, keepdims=True) - raised.mean(axis=0, keepdims=True) + raised.mean(), np.float64
    )


def tsne(points: Array) -> Array:
    """Two coordinates of each point, the same bytes at every call on one thread: seed and start are fixed.

    `points` are principal coordinates, largest first, so that distances are all there and the start is the first two.
    """
    spread = points[:, 0].std()
    start = points[:, :2] / (spread if spread > 0 else 1.0) * 1e-4
    near = min(PERPLEXITY, max(2.0, (len(points) - 1) / 9))
    model = TSNE(perplexity=near, init=start.astype(np.float32), random_state=0, learning_rate="auto", n_jobs=1)
    return np.asarray(model.fit_transform(points.astype(np.float32)), dtype=np.float64)


def model_map(scores: pl.DataFrame, gains: pl.DataFrame) -> pl.DataFrame:
    """Rows of table `map` by the first two components of models' gains, and of their scores.

    Benchmarks are scaled to equal variance; those that fewer than nine tenths of the models have are left out, then
    models with gaps. Without log-likelihoods these maps stand in for the published one.
    """
    rows: list[Row] = []
    for kind, frame, column in (("PCA of gains", gains, "gain"), (SCORES, scores, "score")):
        name = pl.concat_str(pl.col("benchmark"), pl.col("shots").cast(pl.String), pl.col("metric"), separator=" ")
        cells, values = _wide(frame.filter(pl.col(column).is_not_null()), name, column)
        if len(cells) < 3 or values.shape[1] < 2:
            continue
        spread = values.std(axis=0)
        scaled = values / np.where(spread > 0, spread, 1.0)
        share, _, place = components(scaled)
        about = {"kind": kind, "x_share": known(share[0]), "y_share": known(share[1])}
        rows += _rows(cells, frame, place[:, :2], about, _facts(cells, scaled) if kind == SCORES else None)
    return tables.build("map", rows)


def _rows(
    cells: pl.DataFrame, models: pl.DataFrame, points: Array, about: Row, facts: list[Row] | None = None
) -> list[Row]:
    """Rows of table `map`: a point for each cell, described as in `models`."""
    described = cells.join(
        models.select(*CELL, *DESCRIPTION).unique(),
        on=list(CELL),
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    beside = facts or [{}] * len(cells)
    return [
        about | row | fact | {"x": float(x), "y": float(y)}
        for row, fact, (x, y) in zip(described.to_dicts(), beside, points, strict=True)
    ]


def _wide(frame: pl.DataFrame, column: pl.Expr, value: str) -> tuple[pl.DataFrame, Array]:
    """Cells without gaps and their values, cells x columns."""
    if frame.is_empty():
        return frame.select(CELL), np.zeros((0, 0))
    wide = frame.with_columns(column=column).pivot("column", index=list(CELL), values=value, sort_columns=True)
    wide = wide.sort(CELL)
    kept = [c for c in wide.columns if c not in CELL and wide[c].null_count() <= 0.1 * wide.height]
    wide = wide.drop_nulls(kept) if kept else wide
    return wide.select(CELL), wide.select(kept).to_numpy()
