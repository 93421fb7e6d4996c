"""Reading a study file: what its YAML means, which defaults it gets, and how names are suggested."""

from pathlib import Path
from typing import Any

import pytest

from sft_atlas.errors import StudyError
from sft_atlas.files import write_json
from sft_atlas.nodes import Benchmark, Dataset
from sft_atlas.study.build import check_examples
from sft_atlas.study.load import key_path, load_config, load_study, read_yaml, unknown
from tests.unit.helpers import plan_of, write_study

SCALARS: dict[str, Any] = {
    "1e-4": 1e-4,
    "1E5": 1e5,
    "-2.5": -2.5,
    ".5": 0.5,
    "3.": 3.0,
    "10": 10,
    "010": 10,
    "+7": 7,
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    # text in YAML 1.2, and something else in YAML 1.1
    "no": "no",
    "on": "on",
    "Yes": "Yes",
    "0x1f": "0x1f",
    "0o17": "0o17",
    "1_000": "1_000",
    "12:30": "12:30",
    "2024-01-31": "2024-01-31",
    ".inf": ".inf",
    ".nan": ".nan",
    "1e-4x": "1e-4x",
    '"1e-4"': "1e-4",
    "'no'": "no",
    "日本語": "日本語",
}


@pytest.mark.parametrize(("written", "meant"), SCALARS.items())
def test_a_scalar_means_what_it_says(written: str, meant: Any, tmp_path: Path) -> None:
    path = tmp_path / "scalar.yaml"
    path.write_text(f"value: {written}\n", encoding="utf-8")
    read = read_yaml(path)["value"]
    assert read == meant
    assert type(read) is type(meant)


def test_keys_are_text(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("7: a\ntrue: b\nno: c\n1e-4: d\n")
    assert list(read_yaml(path)) == ["7", "true", "no", "1e-4"]


def test_a_study_is_read_with_its_numbers_and_defaults(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    assert study.recipes["full"].learning_rate == 1e-3
    assert study.recipes["decay"].batch_size == 32
    assert study.recipes["full"].adapter is None
    assert study.recipes["lora"].adapter is not None
    assert (study.recipes["lora"].adapter.rank, study.recipes["lora"].adapter.alpha) == (4, 16)
    assert study.template.prompt == "###Question: {instruction}\n###Answer:"
    assert study.samples["all"].mix == ["*-40"]
    assert study.blocks["main"].bases == ["*"]
    assert study.blocks["main"].seeds is None
    assert study.benchmarks["facts"].stop == ["\n"]
    assert study.threads == 1


def test_an_adapter_without_settings_has_the_default_ones(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, (", lora: {rank: 4, targets: all-linear}", "")))
    assert study.recipes["lora"].adapter is not None
    assert study.recipes["lora"].adapter.rank == 8


def test_a_name_may_look_like_a_number(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, ("  fetched:", "  7:")))
    assert list(study.bases) == ["calculator", "reader", "7"]


def test_a_study_takes_from_another_the_sections_it_does_not_have(tmp_path: Path) -> None:
    parent = write_study(tmp_path).rename(tmp_path / "parent.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent\ntitle: a shorter one\nseeds: [7]\nevaluation: {batch_size: 2}\n")
    own, other = load_study(child), load_study(parent)
    assert (own.title, own.seeds, own.evaluation.batch_size) == ("a shorter one", [7], 2)
    # whole sections are replaced, not merged
    assert (own.evaluation.max_length, other.evaluation.max_length) == (2048, 256)
    assert own.bases == other.bases


def test_a_config_needs_nothing() -> None:
    config = load_config({})
    assert (config.study, config.results, config.device, config.only) == ("micro", "results", "auto", "")
    assert config.micro_batch_size is None


def test_a_config_takes_what_a_command_line_gives() -> None:
    config = load_config({"results": "/fast/disk.1/results", "micro_batch_size": 4, "share_imports": "false"})
    assert config.results == "/fast/disk.1/results"
    assert config.micro_batch_size == 4
    assert config.share_imports is False


@pytest.mark.parametrize(
    ("written", "read"),
    [("results/", "results"), ("./results", "results"), ("a//b/./c/", "a/b/c"), ("//disk/x", "/disk/x"), (".", ".")],
)
def test_folders_are_written_one_way_since_snakemake_compares_them_as_text(written: str, read: str) -> None:
    assert load_config({"results": written}).results == read


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_config({"results": "~/results/"}).results == "/home/me/results"


def test_too_few_worked_examples_of_a_prepared_benchmark_are_told_while_planning(tmp_path: Path) -> None:
    plan = plan_of(write_study(tmp_path))
    assert plan.job("benchmark", Benchmark("facts")).labels == {"shots": 2}
    assert plan.job("benchmark", Benchmark("sums")).labels == {}
    check_examples(plan, tmp_path)
    for facts in ({}, {"worked_examples": 2}):
        write_json(tmp_path / plan.job("benchmark", Benchmark("facts")).output, facts)
        check_examples(plan, tmp_path)
    more = plan_of(write_study(tmp_path, ("shots: [0, 2]", "shots: [0, 60]")))
    with pytest.raises(StudyError, match=r"study: benchmarks\.facts\.shots: found 60, but the benchmark has 2 worked"):
        check_examples(more, tmp_path)


def test_a_local_file_is_the_same_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plan_of(write_study(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path)
    path.write_text(path.read_text().replace(f"{tmp_path}/chats", ".//chats"))
    odd = plan_of(path)
    assert odd.job("dataset", Dataset("chats")).sources == ("chats.jsonl",)
    assert set(odd.by_output) == set(plain.by_output)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (["blocks", "main", "seeds", 0], "blocks.main.seeds[0]"),
        (["title"], "title"),
        ([], ""),
        (["a", 1, "b", 2, 3], "a[1].b[2][3]"),
    ],
)
def test_a_key_path_reads_like_the_file(location: list[str | int], path: str) -> None:
    assert key_path(location) == path


def test_only_a_near_name_is_suggested() -> None:
    assert unknown("base", "lama", ["llama", "qwen"]).endswith("expected one of: llama, qwen; did you mean 'llama'?")
    assert unknown("base", "xyz", ["llama", "qwen"]).endswith("expected one of: llama, qwen")
    assert unknown("base", "xyz", []).endswith("expected one of: none declared")


def test_a_long_list_of_names_is_cut() -> None:
    names = [f"name-{number:02}" for number in range(40)]
    said = unknown("base", "name-39x", names)
    assert "…" in said
    assert said.endswith("did you mean 'name-39'?")
    assert len(said) < 250
