"""A report cannot be stale: manifests change with their tables, and the code behind a stage is known from imports."""

import json
from pathlib import Path

import pytest

from sft_atlas.code import code_of
from sft_atlas.hashing import sha256
from sft_atlas.stage import stages
from tests.conftest import Repository

PACKAGE = "workflow/scripts/sft_atlas"


def test_tables_that_were_made_anew_by_changed_code_make_the_report_anew(finished: Repository) -> None:
    """Asked for by their own target, with a page that is older than they are."""
    tables = finished.folder / "results/trimmed/tables"
    before = sha256(tables / "effects.parquet")
    source = finished.folder / PACKAGE / "analysis/findings.py"
    text = source.read_text()
    assert text.count('results["claims"] = claims(') == 1
    source.write_text(
        text.replace(
            'results["claims"] = claims(',
            'results["effects"] = results["effects"].with_columns(gain=pl.col("gain") * 2)\n'
            '    results["claims"] = claims(',
        )
    )
    finished.snakemake("tables")
    assert sha256(tables / "effects.parquet") != before
    assert finished.plan().jobs == {"write_report": 1}


@pytest.mark.parametrize("stage", ["collect", "audit", "analyse"])
def test_a_manifest_names_the_content_of_every_table(finished: Repository, stage: str) -> None:
    folder = finished.folder / "results/trimmed"
    manifest = json.loads((folder / f"{stage}.json").read_text())
    assert manifest["tables"]
    for name, digest in manifest["tables"].items():
        assert sha256(folder / "tables" / f"{name}.parquet") == digest


def test_every_table_is_in_a_manifest(finished: Repository) -> None:
    folder = finished.folder / "results/trimmed"
    said = [
        name
        for stage in ("collect", "audit", "analyse")
        for name in json.loads((folder / f"{stage}.json").read_text())["tables"]
    ]
    # what jobs took is a record, and no analysis reads it
    assert sorted([*said, "cost"]) == sorted(path.stem for path in (folder / "tables").glob("*.parquet"))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("stages/evaluate/tables.py", {"collect_results", "audit_scores", "analyse_tables", "write_report"}),
        ("analysis/columns.py", {"collect_results", "audit_scores", "analyse_tables", "write_report"}),
        ("analysis/audit_values.py", {"audit_scores", "analyse_tables", "write_report"}),
        ("analysis/layers.py", {"analyse_tables", "write_report"}),
        ("report/templates/report.html.j2", {"write_report"}),
    ],
)
def test_a_change_redoes_every_stage_that_it_stands_behind(finished: Repository, file: str, expected: set[str]) -> None:
    with (finished.folder / PACKAGE / file).open("a") as handle:
        handle.write("\n")
    assert finished.plan().jobs.keys() == expected


@pytest.mark.parametrize("last", ["collect", "audit", "analyse"])
def test_a_kill_between_two_stages_leaves_what_follows_to_be_done(finished: Repository, last: str) -> None:
    """The stage ended with other tables, and the workflow was killed before the next one began."""
    folder = finished.folder / "results/trimmed"
    manifest = folder / f"{last}.json"
    content = json.loads(manifest.read_text())
    content["tables"] = {name: digest[::-1] for name, digest in content["tables"].items()}
    manifest.write_text(json.dumps(content))
    following = {
        "collect": {"audit_scores", "analyse_tables", "write_report"},
        "audit": {"analyse_tables", "write_report"},
        "analyse": {"write_report"},
    }
    assert finished.plan().jobs.keys() == following[last]


def test_the_code_behind_a_stage_is_found_from_imports(tmp_path: Path) -> None:
    package = Path(__file__).resolve().parents[2] / PACKAGE
    found = {path.relative_to(package).as_posix() for path in code_of(stages()["collect"])}
    # also what other stages' folders say of their tables, and what that imports
    assert {"stages/collect/run.py", "stages/weights/tables.py", "analysis/columns.py", "failures.py"} <= found
    assert not {"stages/train/run.py", "analysis/claims.py", "report/page.py"} & found
    behind = {path.relative_to(package).as_posix() for path in code_of(stages()["evaluate"])}
    assert {"stages/evaluate/run.py", "data/prompt.py", "models/checkpoint.py", "stages/benchmark/run.py"} <= behind
    assert "analysis/tables.py" not in behind
