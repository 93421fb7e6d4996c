"""After a finished run: what each change redoes, exactly. Changes are real edits, plans are real dry runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Planned, Repository

STUDY = "tests/studies/trimmed.yaml"
AGAIN = {"collect_results": 1, "audit_scores": 1, "analyse_tables": 1, "write_report": 1}
ONE_RUN = {"train_run": 1, "evaluate_model": 1, "measure_weights": 1, "measure_likelihoods": 1}


def nothing(planned: Planned) -> bool:
    return not planned.jobs and "Nothing to be done" in planned.text


def test_running_twice_redoes_nothing(finished: Repository) -> None:
    assert nothing(finished.plan())


def test_checking_out_again_redoes_nothing(finished: Repository) -> None:
    for name in ("Snakefile", "config.yaml", "rules", "workflow", "envs", "studies", "tests"):
        path = finished.folder / name
        for file in [path] if path.is_file() else path.rglob("*"):
            os.utime(file)
    assert nothing(finished.plan())


def test_touching_results_redoes_nothing(finished: Repository) -> None:
    for file in (finished.folder / "results").rglob("*"):
        if file.is_file():
            os.utime(file)
    assert nothing(finished.plan())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# The micro study cut down for tests", "# Another comment"),
        ("title: trimmed micro study", "title: another title"),
        (
            "  math: {micro: {topic: math, rows: 60}}\n  knowledge: {micro: {topic: knowledge, rows: 60}}\n",
            "  knowledge: {micro: {rows: 60, topic: knowledge}}\n  math: {micro: {rows: 60, topic: math}}\n",
        ),
        ("learning_rate: 5e-3", "learning_rate: 0.005"),
    ],
    ids=["comment", "title", "order of keys", "notation of a number"],
)
def test_what_means_the_same_redoes_nothing(finished: Repository, old: str, new: str) -> None:
    finished.edit(STUDY, old, new)
    assert nothing(finished.plan())


def test_code_of_costly_stages_redoes_nothing(finished: Repository) -> None:
    for module in ("train", "evaluate", "weights", "tokens", "perplexity", "likelihoods", "base"):
        with (finished.folder / f"workflow/scripts/sft_atlas/stages/{module}/run.py").open("a") as file:
            file.write("\n# another line\n")
    assert nothing(finished.plan())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # the recipe lora is used by one run
        ("learning_rate: 5e-3", "learning_rate: 4e-3", ONE_RUN | AGAIN),
        (
            "datasets:\n  math:",
            "  newcomer:\n    micro: {architecture: olmo2, mixture: {math: 1, web: 1}, seed: 3, steps: 60, layers: 2, "
            "hidden_size: 32, intermediate_size: 64}\ndatasets:\n  math:",
            {"make_base": 1, "measure_perplexity": 1, "train_run": 2, "measure_weights": 2}
            | {"evaluate_model": 3, "measure_likelihoods": 3}
            | AGAIN,
        ),
        (
            "  knowledge: {micro",
            "  code: {micro: {topic: code, rows: 60}}\n  knowledge: {micro",
            {
                "prepare_dataset": 1,
                "prepare_sample": 2,
                "tokenise_sample": 2,
                "measure_similarity": 2,
                "measure_contamination": 2,
                "note_comparison": 2,
                "measure_perplexity": 2,
                # two bases on code alone, and the mixture, which holds code now
                "train_run": 3,
                "evaluate_model": 3,
                "measure_weights": 3,
                "measure_likelihoods": 3,
            }
            | AGAIN,
        ),
        (
            "samples: math-40, recipes: lora}",
            "samples: math-40, recipes: lora, seeds: [0, 1]}",
            ONE_RUN | AGAIN,
        ),
        ("recipes: full, epochs: [2]}", "recipes: full, epochs: [1, 2]}", ONE_RUN | AGAIN),
        (
            "evaluation: {",
            "  reading: {micro: {topic: reading, items: 20}}\nevaluation: {",
            {"prepare_benchmark": 1, "evaluate_model": 8, "measure_similarity": 3, "measure_contamination": 3}
            | {"note_comparison": 3}
            # texts are drawn of every benchmark
            | {"measure_likelihoods": 8}
            | AGAIN,
        ),
        ("likelihoods: {texts: 12}", "likelihoods: {texts: 11}", {"measure_likelihoods": 8} | AGAIN),
        ("title: trimmed micro study", "analyses: {seed: 7}", {"analyse_tables": 1, "write_report": 1}),
        # the analysis compares bases of one family
        (
            "  calculator:\n    micro:",
            "  calculator:\n    family: abacus\n    micro:",
            {"analyse_tables": 1, "write_report": 1},
        ),
    ],
    ids=["learning rate", "base", "dataset", "seed", "epoch", "benchmark", "texts", "option of the analysis", "label"],
)
def test_a_change_redoes_just_what_hangs_on_it(
    finished: Repository, old: str, new: str, expected: dict[str, int]
) -> None:
    finished.edit(STUDY, old, new)
    assert finished.plan().jobs == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("workflow/scripts/sft_atlas/analysis/correlations.py", {"analyse_tables": 1, "write_report": 1}),
        ("workflow/scripts/sft_atlas/analysis/audit.py", {"audit_scores": 1, "analyse_tables": 1, "write_report": 1}),
        ("workflow/scripts/sft_atlas/report/figures.py", {"write_report": 1}),
        ("workflow/scripts/sft_atlas/stages/collect/run.py", AGAIN),
    ],
)
def test_code_of_the_analysis_redoes_the_analysis(finished: Repository, file: str, expected: dict[str, int]) -> None:
    with (finished.folder / file).open("a") as handle:
        handle.write("\n# another line\n")
    assert finished.plan().jobs == expected


def test_a_new_benchmark_leaves_the_others_as_they_are(finished: Repository) -> None:
    before = contents(finished.folder / "results/runs")
    finished.edit(STUDY, "evaluation: {", "  reading: {micro: {topic: reading, items: 20}}\nevaluation: {")
    finished.snakemake("evaluate")
    after = contents(finished.folder / "results/runs")
    assert {path: after[path] for path in before} == before
    items = [path for path in set(after) - set(before) if "/scores/" in path and path.endswith(".parquet")]
    assert len(items) == 10  # one new benchmark on ten checkpoints


def test_a_new_benchmark_does_not_hide_a_new_run(finished: Repository) -> None:
    """The sample is compared with the new benchmark, for which nothing is trained again, and then the new run is."""
    finished.edit(STUDY, "evaluation: {", "  reading: {micro: {topic: reading, items: 20}}\nevaluation: {")
    assert "train_run" not in finished.plan("train").jobs
    finished.edit(STUDY, "samples: math-40, recipes: lora}", "samples: math-40, recipes: lora, seeds: [0, 1]}")
    assert finished.plan("train").jobs["train_run"] == 1


def test_a_new_epoch_leaves_the_others_as_they_are(finished: Repository) -> None:
    before = contents(finished.folder / "results/runs")
    finished.edit(STUDY, "recipes: full, epochs: [2]}", "recipes: full, epochs: [1, 2]}")
    finished.snakemake("block_mixture")
    after = contents(finished.folder / "results/runs")
    changed = {path for path in before if after[path] != before[path]}
    assert not changed
    new = {Path(path).parts[-2] for path in set(after) - set(before) if path.endswith("checkpoint.json")}
    assert new == {"epoch-01"}
    assert finished.plan("block_mixture").jobs in ({}, {"block_mixture": 1})


def test_a_lost_manifest_is_rebuilt_without_training(finished: Repository) -> None:
    run = next((finished.folder / "results/runs/calculator/math-40").glob("full-*"))
    manifest = next(path for path in run.glob("train-*.json") if "spec" not in path.name and "record" not in path.name)
    before, content = contents(run), manifest.read_bytes()
    manifest.unlink()
    target = str(manifest.relative_to(finished.folder))
    assert finished.plan(target).jobs == {"train_run": 1}
    finished.snakemake(target)
    assert manifest.read_bytes() == content
    after = contents(run)
    kept = [path for path in before if "/epoch-" in path]
    assert kept
    assert [after[path] for path in kept] == [before[path] for path in kept]
    assert nothing(finished.plan())


def test_a_queued_job_does_what_it_was_planned_to_do(finished: Repository) -> None:
    """The study is edited while a job waits: by its path, it is still made as planned, under its old identity."""
    run = next((finished.folder / "results/runs/calculator/math-40").glob("lora-*"))
    manifest = next(path for path in run.glob("train-*.json") if "spec" not in path.name and "record" not in path.name)
    content = manifest.read_bytes()
    weights = {path.name: path.read_bytes() for path in run.rglob("adapter_model.safetensors")}
    for path in run.rglob("*"):
        if path.is_file() and not path.name.endswith(".spec.json"):
            path.unlink()
    finished.edit(STUDY, "learning_rate: 5e-3", "learning_rate: 4e-3")
    finished.snakemake(str(manifest.relative_to(finished.folder)))
    assert manifest.read_bytes() == content
    assert {path.name: path.read_bytes() for path in run.rglob("adapter_model.safetensors")} == weights


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every result below a folder; records of time and owner are left out."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".record.json") and path.parent.name != "lease"
    }


def test_a_source_that_has_moved_is_read_where_it_is_now(project: Callable[[str], Repository]) -> None:
    repository = project("tests/studies/trimmed.yaml")
    rows = [{"prompt": f"what is {n} + {n}?", "completion": str(2 * n)} for n in range(60)]
    source = repository.folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    repository.edit(
        "tests/studies/trimmed.yaml",
        "math: {micro: {topic: math, rows: 60}}",
        "math: {path: rows.jsonl, format: prompt_completion}",
    )
    repository.snakemake("prepare")
    (repository.folder / "data").mkdir()
    source.rename(repository.folder / "data/rows.jsonl")
    repository.edit("tests/studies/trimmed.yaml", "path: rows.jsonl", "path: data/rows.jsonl")
    repository.snakemake("prepare")
    assert not repository.plan("prepare").jobs
