"""Faults that a single column of scores gives away: its scale, its grid of possible values, its parts, its base
rows.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis.cells import MEASURE, METRIC_RANGE
from sft_atlas.analysis.columns import CELL
from sft_atlas.analysis.statistics import Array

DECIMALS = 4
"""Results tables give percent with two decimals: fractions with four."""
MAX_GROUPS = 400
FEW = 3
"""Fewer deviating cells are impossible values, not another set of items."""
DIFFERENT = 8
"""From fewer different values nothing is said about how a column was rounded."""
RARE = 0.5
"""A benchmark scored for less than this share of all cells was hardly run."""
FORMAT_SHARE, FORMAT_STEP = 0.5, 0.1
"""A base below this share of chance, or this far below its own score with other shots or nearly all its tuned models,
does not answer in the format rather than not know."""


@dataclass
class Finding:
    """One fault: which cells have it, what shows it, and whether its cells are left out of the clean analysis."""

    fault: str
    what: str
    evidence: str
    cells: pl.DataFrame
    """Keys of the score cells concerned, with columns CELL and MEASURE; may be empty."""
    excluded: bool = True
    columns: list[tuple[Any, ...]] = field(default_factory=list)


def scale(scores: pl.DataFrame, labels: dict[str, Any]) -> list[Finding]:
    """Columns on another scale than their metric: outside its range, or rounded far more coarsely than their peers.

    A column of fractions that was rounded like percent keeps two decimals where its peers keep four.
    """
    findings = []
    steps = {measure: _decimals(part["score"].to_numpy()) for measure, part in _columns(scores)}
    for measure, part in _columns(scores):
        values = part["score"].to_numpy()
        low, high = (1.0, 10.0) if measure[2] in METRIC_RANGE else (0.0, 1.0)
        outside = part.filter(~pl.col("score").is_between(low, high))
        if outside.height:
            where = f"{outside.height} of {part.height} values lie outside {low:g}..{high:g}, up to {values.max():g}"
            findings.append(Finding("scale", f"{name(measure)} is on another scale", where, _keys(outside)))
            continue
        peers = [step for other, step in steps.items() if other[2] not in METRIC_RANGE and other != measure]
        items = _count(part, labels)
        if measure[2] in METRIC_RANGE or not peers or items is None or len(np.unique(values)) < DIFFERENT:
            continue
        own, usual = steps[measure], int(np.median(peers))
        # what is written with fewer decimals than its items have, while the other columns are not
        if own < usual and 10.0**-own > 4 / items:
            seen = len(np.unique(values))
            evidence = (
                f"values have {own} decimals as fractions, the other columns {usual}: it was written as a "
                "fraction where "
                f"they are percent, so that only {seen} different values occur and one step is "
                f"{items * 10.0**-own:.0f} "
                f"of {items} items"
            )
            findings.append(
                Finding("scale", f"{name(measure)} is on another scale than its peers", evidence, _keys(part), False)
            )
    return findings


def grids(scores: pl.DataFrame, labels: dict[str, Any]) -> list[Finding]:
    """Columns whose cells were averaged over different sets, and values that no count of items gives."""
    findings = []
    groups: dict[tuple[Any, ...], int] = {}
    for measure, part in _columns(scores):
        found, group = _group_grids(measure, part, labels)
        findings += found
        if group:
            groups[measure] = group
    for finding in findings:
        finding.evidence += _sum_hint(finding, groups)
    for measure, part in _columns(scores):
        if measure not in groups:
            findings += _item_grid(measure, part, labels)
    return findings


def _group_grids(
    measure: tuple[Any, ...], part: pl.DataFrame, labels: dict[str, Any]
) -> tuple[list[Finding], int | None]:
    """Cells that are means over different numbers of groups, each group's score being rounded to DECIMALS.

    A mean over m groups times m is a multiple of the rounding step; which m fits is read off the digits.
    """
    values = part["score"].to_numpy()
    fine = ~_on_grid(values, 10.0**DECIMALS)
    # two thirds of means over groups need more digits than the groups' own scores
    if fine.sum() < max(FEW, 0.2 * len(values)) or measure[2] in METRIC_RANGE:
        return [], None
    if (
        labels.get(measure[0], {}).get("groups") is None
        and _on_grid(values, part["n"].fill_null(0).to_numpy()).mean() > 0.9
    ):
        return [], None
    sets: list[tuple[int, Array]] = []
    left = np.ones(len(values), dtype=bool)
    fits = {m: _on_grid(values, m * 10.0**DECIMALS) for m in range(2, MAX_GROUPS + 1)}
    declared = labels.get(measure[0], {}).get("groups")
    while left.sum() >= FEW and len(sets) < 5:
        best = max(fits, key=lambda m: (int((fits[m] & left).sum()), -m))
        if not sets and declared and (fits[declared] & left).sum() >= FEW:
            best = declared
        member = fits[best] & left
        # what few cells have in common they have by chance
        if member.sum() < max(FEW, 0.01 * len(values)):
            break
        sets.append((best, member))
        left &= ~member
    if not sets:
        return [], None
    right = next((m for m, _ in sets if m == declared), sets[0][0] if declared is None else declared)
    findings = []
    for m, member in sets:
        if m == right:
            continue
        others = ", ".join(f"{other} groups: {int(cells.sum())} cells" for other, cells in sets)
        why = f"{declared} declared" if declared else f"{right} in most cells"
        evidence = (
            f"{int(member.sum())} of {len(values)} cells are means over {m} groups, not {right} ({why}; {others})"
        )
        title = f"{name(measure)} mixes sets of items"
        findings.append(
            Finding("mixed sets", title, evidence, _keys(part.filter(pl.Series(member))), True, [(m, *measure)])
        )
    if left.any():
        wrong = part.filter(pl.Series(left))
        evidence = f"{wrong.height} values are no mean over {' or '.join(str(m) for m, _ in sets)} groups"
        findings.append(Finding("impossible value", f"{name(measure)} has values off its grid", evidence, _keys(wrong)))
    return findings, sets[0][0] if declared is None else declared


def _sum_hint(finding: Finding, groups: dict[tuple[Any, ...], int]) -> str:
    """Which other columns together have just as many groups as a deviating set."""
    if not finding.columns:
        return ""
    size, benchmark = finding.columns[0][0], finding.columns[0][1]
    distinct = {measure[0]: count for measure, count in groups.items()}
    own = distinct.pop(benchmark, 0)
    together = own + sum(distinct.values())
    if distinct and together == size:
        return (
            f"; {size} is what {benchmark} and {' and '.join(sorted(distinct))} have together: their mean, not "
            f"{benchmark}"
        )
    return ""


def _item_grid(measure: tuple[Any, ...], part: pl.DataFrame, labels: dict[str, Any]) -> list[Finding]:
    """Values that are no k / n for their item count n, after the table's rounding."""
    label = labels.get(measure[0], {})
    judged = measure[2] in METRIC_RANGE
    items = part["n"].to_numpy().astype(float)
    if not label.get("whole", True) or np.isnan(items).all():
        return []
    values = part["score"].to_numpy()
    # a value was rounded as its column is, or less: trailing zeros do not show
    decimals = np.maximum(_decimals(values), _own_decimals(values))
    step = np.where(decimals < 9, 10.0**-decimals, 0.0)
    # with more items than steps every value is possible
    informative = (items * step < 0.9) & ~np.isnan(items)
    nearest = np.round(values * items) / items
    tolerance = step / 2 + 1e-9
    off = informative & (np.abs(values - nearest) > tolerance)
    if not off.any():
        return []
    tested = int((~np.isnan(items)).sum())
    count = int(items[off][0])
    better = _better_count(values[off], count, float(tolerance[off].max()))
    if better is None and off.sum() > 0.5 * tested:
        # most values being off the grid says that items are not scored 0 or 1, not that most cells are wrong
        return []
    mixed = better is not None and off.sum() >= 0.05 * tested and (informative & ~off).sum() >= FEW
    fewer = np.zeros(len(values), dtype=bool)
    if judged and not mixed:
        fewer[off] = [_fits_fewer(value, count, near) for value, near in zip(values[off], tolerance[off], strict=True)]
    kinds = (("mixed sets" if mixed else "impossible value", off & ~fewer), ("incomplete", off & fewer))
    return [_off_grid(measure, part, fault, which, count, better, tested) for fault, which in kinds if which.any()]


def _off_grid(
    measure: tuple[Any, ...], part: pl.DataFrame, fault: str, which: Array, count: int, better: int | None, tested: int
) -> Finding:
    """The finding of values that an item count does not give; means of fewer answers are marked, not left out."""
    wrong = part.filter(pl.Series(which))
    whose = ", ".join(
        f"{base} {cells}" for base, cells in wrong["base"].value_counts().sort("count", descending=True).iter_rows()
    )
    examples = ", ".join(f"{value:g}" for value in sorted(set(wrong["score"].to_list()))[:3])
    kind = "mean of whole points" if measure[2] in METRIC_RANGE else "share"
    evidence = f"{wrong.height} of {tested} values are no {kind} of {count} items ({examples}; {whose})"
    incomplete = fault == "incomplete"
    if better:
        evidence += f"; {better} answers fit all of them, as if the others were lost"
    elif incomplete:
        evidence += "; fewer answers, eight tenths of them or more, fit each: some are lost or were not judged"
    what = f"{name(measure)} has values that its item count does not give"
    return Finding(fault, what, evidence, _keys(wrong), not incomplete)


def _fits_fewer(value: float, items: int, tolerance: float) -> bool:
    """Whether a mean of whole points is one of fewer answers, at least eight tenths of all."""
    counts = np.arange(int(np.ceil(0.8 * items)), items)
    return bool((np.abs(value - np.round(value * counts) / counts) <= tolerance).any())


def _better_count(values: Array, items: int, tolerance: float) -> int | None:
    """The greatest smaller count that gives all of several values, where chance would hardly do it."""
    values = np.unique(values)
    for count in range(items - 1, items // 2, -1):
        chance = min(1.0, 2 * tolerance * count)
        if (
            chance ** len(values) * items < 0.01
            and (np.abs(values - np.round(values * count) / count) <= tolerance).all()
        ):
            return count
    return None


def parts(scores: pl.DataFrame) -> list[Finding]:
    """Totals that are not the mean of their parts: `A` beside `A/…` of equal shots and metric."""
    findings = []
    wide = dict(_columns(scores))
    for measure, total in wide.items():
        members = [
            part for other, part in wide.items() if other[0].startswith(f"{measure[0]}/") and other[1:] == measure[1:]
        ]
        if len(members) < 2:
            continue
        means = (
            pl.concat(members)
            .group_by(CELL)
            .agg(
                pl.col("score").mean().alias("mean"),
                (pl.col("score").max() - pl.col("score").min()).alias("spread"),
                pl.len().alias("k"),
            )
            .filter(pl.col("k") == len(members))
        )
        joined = total.join(means, on=list(CELL), nulls_equal=True)
        slack = 0.5 * 10.0 ** -_decimals(total["score"].to_numpy()) + 0.5 * 10.0 ** -_decimals(
            joined["mean"].to_numpy(), 3
        )
        # an answer that is lost to a part weighs on the total less than on the mean of parts
        allowed = pl.lit(max(slack, 1e-9) + 1e-9) + pl.col("spread") / pl.col("n").fill_null(2**31)
        wrong = joined.filter((pl.col("score") - pl.col("mean")).abs() > allowed)
        if wrong.height:
            gap = float((wrong["score"] - wrong["mean"]).abs().max())  # type: ignore[arg-type]
            evidence = (
                f"{wrong.height} of {joined.height} totals differ from the mean of {len(members)} parts, by up to "
                f"{gap:.3f}"
            )
            findings.append(
                Finding("inconsistent total", f"{name(measure)} is not the mean of its parts", evidence, _keys(wrong))
            )
    return findings


def format_failures(scores: pl.DataFrame, labels: dict[str, Any]) -> list[Finding]:
    """Base scores that say how the base answers rather than what it knows."""
    own = scores.filter(pl.col("sample").is_null()).select("base", *MEASURE, "score")
    known = {tuple(row[:4]): row[4] for row in own.iter_rows()}
    tuned = scores.filter(pl.col("sample").is_not_null()).group_by("base", *MEASURE)
    low = {tuple(row[:4]): row[4:] for row in tuned.agg(pl.col("score").quantile(0.1), pl.len()).iter_rows()}
    reasons: dict[tuple[Any, ...], list[str]] = {}
    for (base, benchmark, shots, metric), score in known.items():
        if metric in METRIC_RANGE or "/" in benchmark:
            continue
        said = []
        chance = labels.get(benchmark, {}).get("chance")
        if chance and score < FORMAT_SHARE * chance:
            said.append(f"{score:.3f} where guessing gives {chance:g}")
        others = {
            k[2]: v for k, v in known.items() if k[0] == base and k[1] == benchmark and k[3] == metric and k[2] != shots
        }
        best = max(others, key=lambda k: others[k], default=None)
        if best is not None and others[best] - score > FORMAT_STEP and score < others[best] / 4:
            said.append(f"{score:.3f} with {shots} shots but {others[best]:.3f} with {best}")
        floor, count = low.get((base, benchmark, shots, metric), (None, 0))
        if floor is not None and count >= 10 and floor - score > FORMAT_STEP and score < floor / 2:
            said.append(f"{score:.3f} while nine tenths of its {count} tuned models reach {floor:.3f}")
        if said:
            reasons[base, benchmark, shots, metric] = said
    findings = []
    for measure in dict.fromkeys(key[1:] for key in reasons):
        where = {key[0]: said for key, said in reasons.items() if key[1:] == measure}
        cells = scores.filter(pl.col("sample").is_null() & pl.col("base").is_in(list(where)) & _is(measure))
        evidence = "; ".join(f"{base}: {', '.join(said)}" for base, said in sorted(where.items()))
        findings.append(
            Finding(
                "format, not knowledge",
                f"{name(measure)} of {len(where)} base model{'' if len(where) == 1 else 's'}",
                evidence,
                _keys(cells),
                False,
            )
        )
    return findings


def rare(scores: pl.DataFrame) -> list[Finding]:
    """Columns that most cells lack."""
    cells = scores.select(CELL).unique().height
    findings = []
    for measure, part in _columns(scores):
        if part.height < RARE * cells:
            zeros = int((part["score"] == 0).sum())
            evidence = f"{part.height} of {cells} cells have it; {zeros} of these are exactly 0"
            findings.append(Finding("hardly run", f"{name(measure)} was hardly run", evidence, _keys(part)))
    return findings


def missing_cells(missing: pl.DataFrame) -> list[Finding]:
    """Declared cells, or benchmarks of cells, that have no result: one finding per base and set of what is missing."""
    lacking: dict[tuple[Any, ...], list[str]] = {}
    for row in missing.sort(*CELL, "benchmark", "reason").iter_rows(named=True):
        lost = f"{row['benchmark']} ({row['reason']})" if row["benchmark"] else row["reason"]
        lacking.setdefault(tuple(row[column] for column in CELL), []).append(lost)
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]] = {}
    for cell, lost in lacking.items():
        groups.setdefault((cell[0], tuple(lost)), []).append(cell)
    findings = []
    for (base, lost), cells in groups.items():
        whole = all("(" not in text for text in lost)
        what = (
            f"{base}: {len(cells)} cell{'s' if len(cells) > 1 else ''} without "
            f"{'any score' if whole else f'{len(lost)} of their scores'}"
        )
        names = list(dict.fromkeys(f"{cell[1] or 'base'} {cell[2] or ''}".strip() for cell in cells))
        shown = f"{', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
        keys = pl.DataFrame(cells, schema=missing.select(CELL).schema, orient="row")
        findings.append(Finding("missing", what, f"{'; '.join(lost)}: {shown}", keys, False))
    return findings


def name(measure: tuple[Any, ...]) -> str:
    """`mmlu, 5 shots`."""
    return f"{measure[0]}, {measure[1]} shot{'' if measure[1] == 1 else 's'}"


def _columns(scores: pl.DataFrame) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return sorted(
        ((key, part) for key, part in scores.group_by(MEASURE, maintain_order=True)), key=lambda pair: pair[0]
    )


def _keys(part: pl.DataFrame) -> pl.DataFrame:
    return part.select(*CELL, *MEASURE)


def _is(measure: tuple[Any, ...]) -> pl.Expr:
    return pl.all_horizontal(pl.col(column) == value for column, value in zip(MEASURE, measure, strict=True))


def _count(part: pl.DataFrame, labels: dict[str, Any]) -> int | None:
    counts = part["n"].drop_nulls()
    return int(counts.median()) if len(counts) else labels.get(part["benchmark"][0], {}).get("items")  # type: ignore[arg-type]


def _on_grid(values: Array, parts_of_one: Any) -> Any:
    """Whether each value is a whole number of parts, up to the rounding of doubles."""
    scaled = np.asarray(values * parts_of_one, dtype=float)
    return np.abs(scaled - np.round(scaled)) <= 1e-6 + 4e-15 * np.abs(scaled)


def _decimals(values: Array, most: int = 9) -> int:
    """The fewest decimals that nearly all values need (one in twenty may need more); `most` where they need them
    all.
    """
    for digits in range(most):
        if _on_grid(values, 10.0**digits).mean() >= 0.95:
            return digits
    return most


def _own_decimals(values: Array, most: int = 9) -> Array:
    """How many decimals each value needs."""
    found = np.full(len(values), float(most))
    for digits in range(most - 1, -1, -1):
        found[_on_grid(values, 10.0**digits)] = digits
    return found
