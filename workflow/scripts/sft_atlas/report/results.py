"""What the report reads: all tables of a study, and the order and names in which it shows things."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.audit import without_suspects
from sft_atlas.analysis.cells import MEASURE, final_gains, over_seeds, whole_benchmarks
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.study.analyses import AnalysisOptions

Measure = tuple[str, int, str]


@dataclass(frozen=True)
class Setting:
    """A training method and a nominal sample size."""

    method: str | None
    size: int | None

    @property
    def label(self) -> str:
        """` (full, 1,000 rows)`, or less where less is known."""
        parts = [self.method] if self.method else []
        parts += [f"{self.size:,} rows"] if self.size else []
        return f" ({', '.join(parts)})" if parts else ""


class Results:
    """Tables of one study, with what several figures derive from them."""

    def __init__(self, folder: Path, study: dict[str, Any]) -> None:
        """Read every table in `folder`; `study` is the study file, of which all keys are optional here."""
        self.frames = {name: tables.read(folder, name) for name in tables.TABLES}
        self.study = study
        self.options = AnalysisOptions(**study.get("analyses") or {})
        self.intervals = Jackknife(self.options.confidence)

    def __getitem__(self, name: str) -> pl.DataFrame:
        """Table `name`."""
        return self.frames[name]

    @cached_property
    def runs(self) -> pl.DataFrame:
        """Gains at the last epoch per base x sample x recipe x measure, averaged over seeds; no suspect cells."""
        return over_seeds(final_gains(without_suspects(self["gains"], self["suspects"])))

    @cached_property
    def bases(self) -> list[str]:
        """Base models that any table knows, in the study's order."""
        known = ("scores", "gains", "training", "layers", "dimensions", "likelihoods", "samples")
        return self._in_order("bases", pl.concat([self[name]["base"].unique() for name in known]))

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets and mixtures that were trained on, mixtures last."""
        return self._in_order("datasets", pl.concat([self.runs["dataset"], self["free"]["dataset"]]))

    @cached_property
    def _all_measures(self) -> list[Measure]:
        frame = pl.concat([self[name].select(MEASURE) for name in ("gains", "scores")]).unique()
        order = {name: i for i, name in enumerate(self._in_order("benchmarks", frame["benchmark"]))}
        return sorted((row for row in frame.iter_rows()), key=lambda row: (order[row[0]], row[1], row[2]))

    @cached_property
    def measures(self) -> list[Measure]:
        """Benchmark, shots and metric that stand for themselves (cells.whole_benchmarks), in the study's order."""
        scores = self["scores"] if self["scores"].height else self["gains"]
        whole = set(whole_benchmarks(scores).iter_rows())
        return [measure for measure in self._all_measures if measure in whole]

    @cached_property
    def labels(self) -> dict[Measure, str]:
        """A short name of each measure: shots and metric only where a benchmark has several."""
        names: dict[Measure, str] = {}
        for benchmark, shots, metric in self._all_measures:
            peers = [m for m in self._all_measures if m[0] == benchmark]
            parts = [benchmark]
            parts += [f"{shots}-shot"] if len({m[1] for m in peers}) > 1 else []
            parts += [metric] if len({m[2] for m in peers}) > 1 else []
            names[benchmark, shots, metric] = " ".join(parts)
        return names

    def _in_order(self, key: str, names: Iterable[str | None]) -> list[str]:
        """Names as the study lists them, then the others by alphabet."""
        declared = list(self.study.get(key) or {})
        found = {name for name in names if name is not None}
        return [name for name in declared if name in found] + sorted(found - set(declared))

    @cached_property
    def setting(self) -> Setting:
        """The method and size with most cells: what maps show when they can show only one."""
        cells = self["effects"].filter(pl.col("scope") == "cell")
        if cells.is_empty():
            return Setting(None, None)
        counts = cells.group_by("method", "size").len().sort("len", "method", "size", descending=[True, False, False])
        return Setting(counts["method"][0], counts["size"][0])

    def shown(self, scope: str) -> pl.DataFrame:
        """Effects of a scope under `setting`; a dataset that lacks this size (a mixture) has its commonest one."""
        rows = self["effects"].filter((pl.col("scope") == scope) & pl.col("method").eq_missing(self.setting.method))
        chosen = []
        for _, part in rows.group_by("dataset", maintain_order=True):
            own = part.filter(pl.col("size").eq_missing(self.setting.size))
            common = part.group_by("size").len().sort("len", "size", descending=[True, False], nulls_last=True)["size"]
            chosen.append(own if own.height else part.filter(pl.col("size").eq_missing(common[0])))
        return pl.concat(chosen) if chosen else rows

    def effect(self, scope: str) -> dict[str, Any] | None:
        """The row of a scope over all methods, sizes and cells; None where it could not be computed."""
        rows = self["effects"].filter(
            (pl.col("scope") == scope) & pl.col("method").is_null() & pl.col("size").is_null()
        )
        return rows.row(0, named=True) if rows.height else None

    def correlation(self, predictor: str, scope: str) -> dict[str, Any] | None:
        """The correlation of a predictor over all benchmarks, methods and sizes; None where undefined."""
        rows = self["correlations"].filter(
            (pl.col("predictor") == predictor)
            & (pl.col("scope") == scope)
            & pl.col("coefficient").is_not_null()
            & pl.all_horizontal(pl.col("benchmark", "method", "size").is_null())
        )
        return rows.row(0, named=True) if rows.height else None
