"""Audit: what in a table of scores cannot be trusted, and which cells the clean analysis leaves out.

It looks at the scores alone, knows nothing of where they come from, and says what it saw: a finding names rows, columns
and evidence. What follows from it is a judgement, so every analysis is run with and without the cells concerned.
"""

from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.audit_values import Finding, format_failures, grids, missing_cells, name, parts, rare, scale
from sft_atlas.analysis.cells import MEASURE
from sft_atlas.analysis.columns import CELL
from sft_atlas.analysis.statistics import Array, Labels

FINE = 0.4
"""Share of different values from which a column tells rows apart."""
MOST_BITS = 8.0
"""What one shared value can tell at most: similar models score alike."""
SURE_BITS = 10.0
"""Copies must be so many bits less likely than one chance pair in the whole table: 1 false alarm in 1,000 tables."""


def audit(
    scores: pl.DataFrame, missing: pl.DataFrame, imported: pl.DataFrame, labels: dict[str, Any], own: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables `audit` (a row per finding) and `suspects` (a row per score cell and finding).

    `own`: the scores are those of runs of this study, no table of somebody.
    """
    known = scores.filter(pl.col("score").is_not_null())
    findings: list[Finding] = []
    if known.height:
        findings += copies(known, own)
        findings += scale(known, labels) + grids(known, labels) + parts(known)
        findings += rare(known) + format_failures(known, labels)
    findings += missing_cells(missing)
    rows, suspects = [], []
    for number, finding in enumerate(findings, 1):
        mark = f"F{number:02d}"
        cells = finding.cells
        measures = list(dict.fromkeys(cells.select(MEASURE).iter_rows())) if "benchmark" in cells.columns else []
        rows.append(
            {
                "finding": mark,
                "fault": finding.fault,
                "what": finding.what,
                "evidence": finding.evidence,
                "rows": _short(_row_names(cells)),
                "columns": _short(list(dict.fromkeys(name(measure) for measure in measures))),
                "source_columns": _short(_source(imported, measures)) or None,
                "n_rows": cells.select(CELL).unique().height,
                "n_cells": cells.height if measures else 0,
                "excluded": finding.excluded and bool(measures),
            }
        )
        if measures:
            suspects += [
                {**cell, "finding": mark, "fault": finding.fault, "excluded": finding.excluded}
                for cell in cells.unique(maintain_order=True).to_dicts()
            ]
    return tables.build("audit", rows), tables.build("suspects", suspects)


def without_suspects(frame: pl.DataFrame, suspects: pl.DataFrame) -> pl.DataFrame:
    """Scores without excluded cells; of gains also those whose base score is excluded."""
    excluded = suspects.filter("excluded").select(*CELL, *MEASURE).unique()
    clean = frame.join(excluded, on=[*CELL, *MEASURE], how="anti", nulls_equal=True)
    if "gain" not in frame.columns:
        return clean
    bases = excluded.filter(pl.col("sample").is_null()).select("base", *MEASURE)
    return clean.join(bases, on=["base", *MEASURE], how="anti")


def copies(scores: pl.DataFrame, own: bool = False) -> list[Finding]:
    """Rows that share more exact values than chance gives, and which of them is the copy.

    In scores of our own equal rows are models that answer alike, no table's mistake: they are marked and stay. In an
    imported table `_which` says whose values they are, and the copy alone is left out; where nothing says so, both are.

    In each column that tells rows apart, an equal value counts -log2 of its share among rows of the base, at most
    MOST_BITS. A pair of rows is a copy when its bits exceed log2 of the number of pairs by SURE_BITS and come from
    three columns or more. Copies with the same pattern (bases, recipes, epochs) are one finding.
    """
    rows, columns, values = _wide(scores)
    if len(rows) < 2:
        return []
    bases = np.unique([row[0] for row in rows], return_inverse=True)[1]
    bits, shared = np.zeros((len(rows),) * 2), np.zeros((len(rows),) * 2, dtype=int)
    for column in values.T:
        told = _bits(column, bases)
        if told is None:
            continue
        equal = column[:, None] == column[None, :]
        bits += np.where(equal, np.minimum(told[:, None], told[None, :]), 0)
        shared += equal
    first, second = np.triu_indices(len(rows), 1)
    threshold = np.log2(len(first)) + SURE_BITS
    sure = (bits[first, second] > threshold) & (shared[first, second] >= 3)
    patterns: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for i, j in zip(first[sure], second[sure], strict=True):
        patterns.setdefault(_pattern(rows[i], rows[j]), []).append((int(i), int(j)))
    return [
        _judged(pairs, *_copied(pairs, rows, columns, values, bits, threshold), rows, columns, values, own)
        for _, pairs in sorted(patterns.items(), key=repr)
    ]


def _bits(column: Array, bases: Labels) -> Array | None:
    """What each value of a column tells; None where too few different ones occur."""
    there = np.isfinite(column)
    if there.sum() < 2 or len(np.unique(column[there])) < FINE * there.sum():
        return None
    told = np.zeros(len(column))
    for base in np.unique(bases):
        member = there & (bases == base)
        found, place, count = np.unique(column[member], return_inverse=True, return_counts=True)
        if len(found):
            told[member] = (
                np.minimum(-np.log2(count[place] / member.sum()), MOST_BITS) if member.sum() > 1 else MOST_BITS
            )
    return told


def _pattern(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """What pairs have in common that were copied in one go: bases, recipes and epochs."""
    same = "same sample" if one[1] == other[1] else f"{one[1]} {other[1]}"
    return (one[0], other[0], str(one[2]), str(other[2]), one[4], other[4], same)


def _copied(
    pairs: list[tuple[int, int]],
    rows: list[tuple[Any, ...]],
    columns: list[tuple[Any, ...]],
    values: Array,
    bits: Array,
    threshold: float,
) -> tuple[str, list[int], str]:
    """One pattern in words, its columns (equal in four fifths of the pairs that have a value), and the evidence."""
    left, right = values[[i for i, _ in pairs]], values[[j for _, j in pairs]]
    there = np.isfinite(left) & np.isfinite(right)
    share = np.where(there.any(axis=0), (left == right).sum(axis=0) / np.maximum(there.sum(axis=0), 1), 0)
    chosen = [k for k in range(len(columns)) if share[k] >= 0.8]
    one, other = rows[pairs[0][0]], rows[pairs[0][1]]
    whole = len(chosen) == int(there.any(axis=0).sum())
    what = f"{_row_name(one, len(pairs))} and {_row_name(other, len(pairs))} hold the same scores"
    least = min(bits[i, j] for i, j in pairs)
    evidence = (
        f"{len(chosen)} of {int(there.any(axis=0).sum())} columns are equal{' (the whole row)' if whole else ''} in "
        f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of rows; at least {least:.0f} bits beyond chance, where "
        f"{threshold:.0f} are needed"
    )
    return what, chosen, evidence


def _judged(
    pairs: list[tuple[int, int]],
    what: str,
    chosen: list[int],
    evidence: str,
    rows: list[tuple[Any, ...]],
    columns: list[tuple[Any, ...]],
    values: Array,
    own: bool,
) -> Finding:
    """The finding of one pattern with the cells that it leaves out: those of the copy, of both, or none."""
    sides = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
    copy, why = _which(sides, chosen, rows, values) if not own else (None, "")
    if own:
        evidence += "; these scores are our own, so the models answer alike: marked, not left out"
    elif copy is None:
        evidence += "; which of them is the copy the table does not say, so both are left out"
    else:
        evidence += f"; the copy is {_row_name(rows[sides[copy][0]], len(pairs))}: {why}"
    copied = [i for side in (sides if copy is None else [sides[copy]]) for i in side]
    keys = [
        {**dict(zip(CELL, rows[i], strict=True)), **dict(zip(MEASURE, columns[k], strict=True))}
        for i in copied
        for k in chosen
        if np.isfinite(values[i, k])
    ]
    schema = {column: tables.schema("scores")[column] for column in (*CELL, *MEASURE)}
    return Finding("copy", what, evidence, pl.DataFrame(keys, schema=schema), not own)


APART, OUT_OF_PLACE, IN_PLACE = 2.0, 1.5, 1.15
"""How much worse one side must fit than the other; from where a side without a rival's measure counts as misplaced, and
up to where as in place."""


def _which(
    sides: list[list[int]], chosen: list[int], rows: list[tuple[Any, ...]], values: Array
) -> tuple[int | None, str]:
    """Which side (0 or 1) is the copy, and why; None where nothing says so.

    Values belong where they fit what surrounds them (`_misfit`, the median over the rows of a side). Of two sides that
    can be measured alike the copy fits APART times as badly; a side that alone can be measured is the copy when it is
    out of place, and the other one is when it is in place.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = values / np.nanstd(values, axis=0)
    found = [[_misfit(i, chosen, rows, scaled) for i in side] for side in sides]
    kinds = [next((kind for _, kind in side if kind), "") for side in found]
    far = [float(np.median([value for value, kind in side if kind] or [np.nan])) for side in found]
    said = [f"{kind}: {value:.2f}" for value, kind in zip(far, kinds, strict=True)]
    if np.isfinite(far).all():
        copy = int(np.argmax(far))
        apart = max(far) >= APART * min(far) or (max(far) >= OUT_OF_PLACE and min(far) <= IN_PLACE)
        clear = kinds[0] == kinds[1] and apart
        return (copy, f"{said[copy]}, the other row {far[1 - copy]:.2f}") if clear else (None, "")
    if np.isfinite(far).any():
        known = int(np.isfinite(far).argmax())
        if far[known] >= OUT_OF_PLACE:
            return known, f"it is out of place, {said[known]}"
        if far[known] <= IN_PLACE:
            return 1 - known, f"the other row is in place, {said[known]}"
    return None, ""


def _misfit(row: int, chosen: list[int], rows: list[tuple[Any, ...]], scaled: Array) -> tuple[float, str]:
    """How badly the chosen columns of a row fit what surrounds it, about 1 where they do, and by what that is told.

    Of a run: the distance from its neighbouring epochs over that from the nearest of its other epochs. Of a base: the
    distance from the nearest of its own checkpoints, over that of its other columns where these can tell.
    """
    base, sample, recipe, seed, epoch = rows[row]
    other = [k for k in range(scaled.shape[1]) if k not in set(chosen) and np.isfinite(scaled[row, k])]

    def away(near: list[int], columns: list[int]) -> Array:
        gaps = np.abs(scaled[near][:, columns] - scaled[row, columns])
        known = np.isfinite(gaps)
        return np.where(known, gaps, 0.0).sum(axis=1)[known.any(axis=1)] / known.sum(axis=1)[known.any(axis=1)]

    if sample is None:
        own = away([i for i, r in enumerate(rows) if r[0] == base and r[1] is not None], chosen)
        if not len(own):
            return float("nan"), ""
        if len(other) < 3:
            return float(own.min()), "standard deviations from its nearest checkpoint"
        rest = away([i for i, r in enumerate(rows) if r[0] == base and r[1] is not None], other)
        return float(own.min() / rest.min()), "distance from its nearest checkpoint, over that of its other columns"
    same = [i for i, r in enumerate(rows) if r[:4] == (base, sample, recipe, seed) and i != row]
    # the row that holds the same scores surrounds nothing
    same = [i for i in same if not np.array_equal(scaled[i, chosen], scaled[row, chosen])]
    beside = away([i for i in same if abs(rows[i][4] - epoch) == 1], chosen)
    every = away(same, chosen)
    if not len(beside) or len(every) < 2 or not every.min() > 0:
        return float("nan"), ""
    return float(beside.min() / every.min()), "distance from its neighbouring epochs, over that from its nearest one"


def _wide(scores: pl.DataFrame) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], Array]:
    """Rows (cells), columns (measures) and their values; NaN where there is none."""
    rows = sorted(set(scores.select(CELL).iter_rows()), key=repr)
    columns = sorted(set(scores.select(MEASURE).iter_rows()))
    place, order = {row: i for i, row in enumerate(rows)}, {column: k for k, column in enumerate(columns)}
    values = np.full((len(rows), len(columns)), np.nan)
    for *key, score in scores.select(*CELL, *MEASURE, "score").iter_rows():
        values[place[tuple(key[:5])], order[tuple(key[5:])]] = score
    return rows, columns, values


def _row_name(row: tuple[Any, ...], many: int = 1) -> str:
    """A cell in words; of many cells what they share."""
    base, sample, recipe, _, epoch = row
    if sample is None:
        return f"base {base}"
    return f"{base} {recipe} epoch {epoch} ({many} samples)" if many > 1 else f"{base} {sample} {recipe} epoch {epoch}"


def _row_names(cells: pl.DataFrame) -> list[str]:
    return list(dict.fromkeys(_row_name(row) for row in cells.select(CELL).iter_rows()))


def _source(imported: pl.DataFrame, measures: list[tuple[Any, ...]]) -> list[str]:
    """The names that the columns have in the imported file."""
    known = {tuple(row[1:]): row[0] for row in imported.select("column", *MEASURE).iter_rows()}
    return [known[measure] for measure in measures if measure in known]


def _short(names: list[str], most: int = 12) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
