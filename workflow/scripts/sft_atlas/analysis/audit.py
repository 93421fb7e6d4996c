"""Audit: what in a table of scores cannot be trusted, and which cells the clean analysis leaves out.

It looks at the scores alone, knows nothing of where they come from, and says what it saw: a finding names rows, columns
and evidence. What follows from it is a judgement, so every analysis is run with and without the cells concerned.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
    found = []
    taken = np.zeros(values.shape, dtype=bool)
    for _, pairs in sorted(patterns.items(), key=repr):
        what, chosen, evidence = _copied(pairs, rows, columns, values, bits, threshold)
        found.append((pairs, what, chosen, evidence))
        for pair in pairs:
            taken[np.ix_(np.array(pair), np.array(chosen))] = True
    return [_judged(*parts, rows, columns, values, taken, own) for parts in found]


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
    taken: NDArray[np.bool_],
    own: bool,
) -> Finding:
    """The finding of one pattern with the cells that it leaves out: those of the copy, of both, or none."""
    sides = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
    copy, why = _which(sides, chosen, rows, values, taken) if not own else (None, "")
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


APART = 3.0
"""A side must lie so many times as far from what surrounds it as the other side, to be called the copy."""


def _which(
    sides: list[list[int]],
    chosen: list[int],
    rows: list[tuple[Any, ...]],
    values: Array,
    taken: NDArray[np.bool_],
) -> tuple[int | None, str]:
    """Which side (0 or 1) is the copy, and why; None where nothing says so.

    A row belongs where it lies near what surrounds it (`_around`), in the columns that are equal. The side that lies
    APART times as far from its surroundings as the other from its own is the copy.
    """
    far, about = [], []
    for side in sides:
        found = [_around(i, chosen, rows, values, taken) for i in side]
        known = [distance for distance, _ in found if np.isfinite(distance)]
        far.append(float(np.median(known)) if known else float("nan"))
        about.append(next((name for distance, name in found if np.isfinite(distance)), ""))
    if not np.isfinite(far).all() or max(far) < APART * min(far):
        return None, ""
    copy = int(np.argmax(far))
    return copy, (
        f"from its {about[copy]} it lies {max(far):.3f} off, the other row {min(far):.3f} from its {about[1 - copy]}"
    )


def _around(
    row: int, chosen: list[int], rows: list[tuple[Any, ...]], values: Array, taken: NDArray[np.bool_]
) -> tuple[float, str]:
    """Mean distance of a row from what surrounds it, in the chosen columns, and what that is.

    Of a run its neighbouring epochs, else the other runs of its base with this recipe and epoch (the rest of the
    block); of a base its own fine-tuned models. Cells that are themselves in question say nothing.
    """
    base, sample, recipe, seed, epoch = rows[row]
    clean = np.where(taken, np.nan, values)[:, chosen]
    kinds: tuple[tuple[str, Callable[[tuple[Any, ...]], bool]], ...] = (
        ("neighbouring epochs", lambda r: r[:4] == (base, sample, recipe, seed) and abs(r[4] - epoch) == 1),
        ("block's other rows", lambda r: r[0] == base and r[2] == recipe and r[4] == epoch),
    )
    if sample is None:
        kinds = (("own checkpoints", lambda r: r[0] == base and r[1] is not None),)
    for kind, member in kinds:
        near = [i for i, other in enumerate(rows) if i != row and member(other)]
        known = np.isfinite(clean[near]).any(axis=0) & np.isfinite(values[row, chosen])
        if known.sum() >= 2:
            middle = np.nanmedian(clean[near][:, known], axis=0)
            return float(np.abs(values[row, chosen][known] - middle).mean()), kind
    return float("nan"), ""


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
