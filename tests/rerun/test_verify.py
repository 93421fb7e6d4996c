"""`sft-atlas verify`: a finished study is what its records say, and every kind of damage is found and can be mended."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sft_atlas.commands.verify import Report, verify
from sft_atlas.errors import StudyError
from sft_atlas.files import write_json, write_record
from sft_atlas.study.identity import spec_file, spec_hash
from tests.conftest import ENVIRONMENT, Repository
from tests.unit.helpers import content

STUDY = "tests/studies/trimmed.yaml"
RUN = "runs/calculator/math-40/full-*"


def check(repository: Repository) -> Report:
    return verify([repository.folder / "results"])


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def test_a_finished_study_is_intact(finished_run: Repository) -> None:
    report = check(finished_run)
    assert report.problems == []
    assert report.unrecorded == report.released == 0
    results = finished_run.folder / "results"
    weights = set(results.rglob("*.safetensors"))
    assert len(weights) == 12 and weights <= report.hashes.keys()
    assert report.specs == len(list(results.rglob("*.spec.json")))


# damage: which file, what is done to it, what the line must say, and what it must tell to delete beside that
DAMAGES: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "bit in a base": ("bases/reader-*/model/model.safetensors", flip, "has changed", "manifest.json"),
    "bit in a checkpoint": (f"{RUN}/epoch-01/model/model.safetensors", flip, "has changed", "/train-"),
    "bit in an adapter": (
        "runs/calculator/math-40/lora-*/epoch-01/model/adapter_model.safetensors",
        flip,
        "has changed",
        "/train-",
    ),
    "bit in a sample": ("samples/math-40-*/rows.parquet", flip, "has changed", "manifest.json"),
    "bit in tokens": ("tokens/*/math-40-*/tokens.parquet", flip, "has changed", "manifest.json"),
    "bit in answers": (f"{RUN}/epoch-02/scores/*.parquet", flip, "has changed", "/scores-"),
    "bit in a table of scores": (f"{RUN}/scores-*.parquet", flip, "has changed", "/scores-"),
    "bit in a table of tensors": (f"{RUN}/epoch-01/weights.parquet", flip, "has changed", "/weights-"),
    "bit in perplexities": ("bases/reader-*/perplexity/*.parquet", flip, "has changed", "/perplexity-"),
    "bit in a log": (f"{RUN}/log.parquet", flip, "has changed", "/train-"),
    "file cut": (f"{RUN}/epoch-01/model/config.json", lambda path: path.write_text("{}"), "has 2 bytes", "/train-"),
    "weights gone": (f"{RUN}/epoch-02/model/model.safetensors", Path.unlink, "is missing", "/train-"),
    "table gone": (f"{RUN}/scores-*.parquet", Path.unlink, "is missing, though its job ended well", ""),
    "manifest edited": ("samples/math-40-*/manifest.json", edit('"rows": 40', '"rows": 41'), "has changed", "manifest"),
    "record cut": (f"{RUN}/log.json", lambda path: path.write_text('{"files": ['), "not valid JSON", "/log.json"),
    "specification edited": (
        f"{RUN}/train-*.spec.json",
        edit('"learning_rate": 0.001', '"learning_rate": 0.002'),
        "was changed after it was frozen",
        "",
    ),
    "specification emptied": (
        f"{RUN}/train-*.spec.json",
        lambda path: path.write_text("{}"),
        "lacks what a specification has",
        "",
    ),
}


@pytest.mark.parametrize(("place", "damage", "said", "mend"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(
    place: str, damage: Callable[[Path], object], said: str, mend: str, finished: Repository
) -> None:
    path = sorted((finished.folder / "results").glob(place))[0]
    damage(path)
    problems = check(finished).problems
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: ")
    assert said in problems[0]
    assert mend in problems[0].rpartition("; ")[2]
    assert "delete" in problems[0] or "`snakemake --profile local -- " in problems[0]


def test_a_specification_whose_settings_are_those_of_another_run_is_found(tmp_path: Path) -> None:
    settings = {"seed": 0}
    for run, problems in ((spec_hash("run", 1, settings), 0), ("12345678", 1)):
        spec = content("train", "runs/b/s/r/train.json", {"run": run, "settings": settings}) | {"version": 1}
        spec["hash"] = spec_hash("train", 1, spec["identity"])
        path = tmp_path / run / spec_file(spec["output"], spec["hash"])
        write_json(path, spec)
        found = verify([path]).problems
        assert len(found) == problems
    assert "names run 12345678, but its settings are those of run" in found[0]


def test_what_was_measured_on_another_checkpoint_is_found(finished: Repository) -> None:
    record = next((finished.folder / "results").glob(f"{RUN}/epoch-01/checkpoint.json"))
    edit('"step": 3', '"step": 4')(record)
    problems = check(finished).problems
    # two benchmarks' answers, the log-likelihoods and the table of tensors
    assert len(problems) == 4
    assert all("was made from another checkpoint" in problem for problem in problems)


def test_mending_as_told_makes_the_same_bytes_again(finished: Repository) -> None:
    path = next((finished.folder / "results").glob(f"{RUN}/epoch-01/model/model.safetensors"))
    before = path.read_bytes()
    flip(path)
    (problem,) = check(finished).problems
    names, _, command = problem.rpartition("; delete ")[2].partition(" and run ")
    assert len(names.split()) == 2
    for name in names.split():
        Path(name).unlink()
    _, _, target = command.strip("`").partition(" -- ")
    finished.snakemake(str(Path(target).relative_to(finished.folder)))
    assert path.read_bytes() == before
    assert check(finished).problems == []


@pytest.mark.parametrize("keep", ["none", "deltas"])
def test_weights_that_the_study_gave_back_are_no_damage(keep: str, finished: Repository) -> None:
    finished.edit(STUDY, "title: trimmed micro study", f"keep_weights: {keep}")
    finished.snakemake("release")
    report = check(finished)
    assert report.problems == []
    # nine full checkpoints, and with `none` the adapter
    assert report.released == (10 if keep == "none" else 9)
    assert not list((finished.folder / "results").rglob("*.verify"))
    if keep == "deltas":
        delta = next((finished.folder / "results").glob(f"{RUN}/epoch-01/model/*.delta"))
        flip(delta)
        (problem,) = check(finished).problems
        assert problem.startswith(f"{delta}: does not give its weights back")
        delta.unlink()
        (problem,) = check(finished).problems
        assert "model.safetensors: is missing" in problem


def test_what_a_link_leads_to_is_compared(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("abc")
    (tmp_path / "base/model").mkdir(parents=True)
    (tmp_path / "base/model/weights.safetensors").symlink_to(tmp_path / "source")
    write_record(tmp_path / "base/manifest.json", {"spec": "x"}, [tmp_path / "base/model"])
    assert verify([tmp_path / "base"]).problems == []
    (tmp_path / "source").write_text("abd")
    (problem,) = verify([tmp_path / "base"]).problems
    assert f"has changed (a link to {tmp_path / 'source'})" in problem
    (tmp_path / "source").unlink()
    (problem,) = verify([tmp_path / "base"]).problems
    assert f"is missing (a link to {tmp_path / 'source'})" in problem


def test_the_command_looks_where_it_is_told_and_its_status_says_what_it_found(finished: Repository) -> None:
    def command(*paths: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "sft_atlas.commands.cli", "verify", *paths]
        return subprocess.run(line, cwd=finished.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    run = next((finished.folder / "results").glob(RUN)).relative_to(finished.folder)
    flip(next((finished.folder / run).glob("epoch-01/model/model.safetensors")))
    everything, bases, one = command(), command("results/bases"), command(str(run / "log.parquet"))
    assert (everything.returncode, bases.returncode, one.returncode) == (1, 0, 1)
    assert everything.stdout == one.stdout
    assert everything.stdout.startswith(f"{run}/epoch-01/model/model.safetensors: has changed")
    assert bases.stdout == "" and ", 0 problems" in bases.stderr
    wrong = command("results/nowhere")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: results/nowhere: there is no such file or folder")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no manifest"):
        verify([tmp_path])


def test_a_later_job_of_the_same_output_counts(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("abc")
    for number, recorded in (
        ("1", "0" * 64),
        ("2", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ):
        record = {"output": "study/report.html", "started": float(number), "output_sha256": recorded}
        (tmp_path / f"report-{number}.record.json").write_text(json.dumps(record))
    assert verify([tmp_path]).problems == []


def test_long_work_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows").write_text("abc")
    write_record(tmp_path / "manifest.json", {"spec": "x"}, [tmp_path / "rows"])
    verify([tmp_path])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sft_atlas.commands.verify.PROGRESS_SECONDS", -1.0)
    verify([tmp_path])
    assert f"verify: 1 files (0.000 GB), 1 records, 0 specs, 0 problems; now at {tmp_path / 'rows'}" in (
        capsys.readouterr().err
    )


def test_what_lies_elsewhere_is_not_the_studys_to_judge(finished: Repository, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "verify", str(tmp_path)]
    done = subprocess.run(
        command, cwd=finished.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert (
        done.stderr == f"error: {tmp_path}: is not below results, the results folder of config.yaml; give paths there\n"
    )
