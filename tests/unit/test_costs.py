"""Costs are read off the records of all jobs behind a result; training logs are thinned without losing their mean."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.files import write_json
from sft_atlas.report.costs import by_stage, cost_table, records
from sft_atlas.stages.train.tables import curve
from sft_atlas.study.identity import spec_file
from tests.unit.helpers import content


def leave(root: Path, stage: str, output: str, inputs: Any = None, seconds: float = 1.0, **more: Any) -> str:
    """What a finished job leaves beside its output: the frozen specification and, unless `seconds` is 0, a record."""
    identity = more.pop("identity", {"of": output})
    spec = content(stage, output, identity, inputs)
    output = output.replace("HASH", spec["hash"])
    spec["output"] = output
    frozen = root / spec_file(output, spec["hash"])
    write_json(frozen, spec)
    write_json(root / output, {"spec": spec["hash"]})
    if seconds:
        times = {"wall_seconds": seconds, "cpu_seconds": 2 * seconds, "peak_memory_mb": 100 * seconds}
        record = {"stage": stage, "output": output, **times, **more}
        write_json(frozen.with_name(frozen.name.replace(".spec.json", ".record.json")), record)
    return output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base, a sample, its tokens, a run, and the collected study."""
    base = leave(tmp_path, "base", "bases/one-HASH/manifest.json", seconds=8)
    sample = leave(tmp_path, "sample", "samples/math-40-HASH/manifest.json", seconds=0)
    tokens = leave(tmp_path, "tokens", "tokens/one-00000000/math-40-HASH/manifest.json", {"sample": sample}, 3)
    place = "runs/one/math-40/full-x-01234567"
    settings = {"settings": {"seed": 5}}
    inputs = {"base": base, "tokens": tokens}
    train = leave(tmp_path, "train", f"{place}/train-HASH.json", inputs, 20, identity=settings, device="gpu")
    scores = leave(tmp_path, "evaluate", f"{place}/scores-HASH.parquet", {"model": train}, 10)
    results = {"results": [tokens, scores, train, "runs/gone/gone/full-00000000/train-00000000.json"]}
    leave(tmp_path, "collect", "study/collect.json", results, 1)
    # an earlier plan of the same study, which is not what the table was collected by
    leave(tmp_path, "collect", "other/collect.json", {"results": [scores]}, 99)
    return tmp_path


def test_every_job_behind_a_study_is_counted_once(root: Path) -> None:
    table = cost_table(records(["study/collect.json"], root))
    columns = ["stage", "base", "sample", "recipe", "seed", "wall_seconds", "cpu_seconds", "gpu_seconds"]
    assert table.select(columns).rows() == [
        ("base", "one", None, None, None, 8.0, 16.0, 0.0),
        ("collect", None, None, None, None, 1.0, 2.0, 0.0),
        ("evaluate", "one", "math-40", "full-x", 5, 10.0, 20.0, 0.0),
        ("tokens", None, "math-40", None, None, 3.0, 6.0, 0.0),
        ("train", "one", "math-40", "full-x", 5, 20.0, 40.0, 20.0),
    ]
    row = next(row for row in by_stage(table) if row["stage"] == "train")
    assert (row["jobs"], row["wall_hours"], row["gpu_hours"]) == (1, 20 / 3600, 20 / 3600)


def test_results_without_records_cost_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    assert cost_table(records(["study/collect.json"], tmp_path)).is_empty()


def log(steps: int, per_epoch: int) -> pl.DataFrame:
    """A log whose loss is the number of the step."""
    numbers = range(1, steps + 1)
    columns = {"step": numbers, "epoch": [n / per_epoch for n in numbers], "loss": map(float, numbers)}
    columns |= {"learning_rate": [1 / n for n in numbers], "grad_norm": [2.0] * steps}
    return pl.DataFrame({name: list(values) for name, values in columns.items()})


def test_a_log_is_thinned_by_means() -> None:
    thin = pl.DataFrame(curve(log(100, 25), 4, rows=8))
    assert thin.height == 8
    assert thin["step"].to_list() == [13, 25, 38, 50, 63, 75, 88, 100]
    assert thin["loss"][0] == pytest.approx(7.0)
    assert thin["learning_rate"][0] == pytest.approx(1 / 13)
    weights = thin["step"].diff().fill_null(13)
    assert (thin["loss"] * weights).sum() == pytest.approx(5050)


def test_a_short_log_stays_whole_and_a_longer_run_is_cut() -> None:
    assert [row["loss"] for row in curve(log(6, 2), 2)] == [1, 2, 3, 4]
    assert curve(log(0, 1).cast({"loss": pl.Float64, "grad_norm": pl.Float64}), 2) == []


def test_a_diverged_step_is_unknown() -> None:
    broken = log(4, 2).with_columns(loss=pl.Series([1.0, float("nan"), float("nan"), 4.0]))
    assert [row["loss"] for row in curve(broken, 2, rows=2)] == [1.0, 4.0]
    assert [row["loss"] for row in curve(broken, 2)] == [1.0, None, None, 4.0]
