"""What changes a cell's identity and what does not: names, labels and places never, science always."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from sft_atlas import hashing
from sft_atlas.errors import StudyError
from sft_atlas.files import write_json
from sft_atlas.hashing import canonical, digest, fingerprint, sha256
from sft_atlas.nodes import Benchmark, Dataset, RunKey, Sample
from sft_atlas.stage import stages
from sft_atlas.study.build import check_examples
from sft_atlas.study.identity import spec_file
from sft_atlas.study.plan import Plan
from tests.unit.helpers import do, plan_of, write_study


def hashes(plan: Plan) -> list[tuple[str, str]]:
    """Stage and hash of every job."""
    return sorted((spec.stage, spec.hash) for spec in plan.by_output.values())


def run_id(plan: Plan, base: str = "calculator", sample: str = "math-40", recipe: str = "full", seed: int = 0) -> str:
    """Identity of a run."""
    return str(plan.job("train", RunKey(base, sample, recipe, seed)).identity["run"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unchanged study and the files it refers to."""
    return write_study(tmp_path_factory.mktemp("study")).parent


@pytest.fixture
def planned(study: Path) -> Plan:
    return plan_of(write_study(study))


SAMPLES = [("bases: calculator, samples: all", "bases: calculator, samples: whole"), ("{sample: all", "{sample: whole")]
NEUTRAL = {
    "label of a base": [("family: llama", "family: other\n    language: en")],
    "title": [("a study that is right", "another title")],
    "comments and blank lines": [("recipes:\n", "\n# how it is trained\nrecipes:\n\n")],
    "order of keys": [("{rank: 4, targets: all-linear}", "{targets: all-linear, rank: 4}")],
    "a default that is written out": [("schedule: cosine, epochs: 4", "schedule: cosine, epochs: 4, weight_decay: 0")],
    "another way to write a number": [("learning_rate: 5e-3", "learning_rate: 0.0050")],
    "matches": [("matches: [math]", "matches: []")],
    "the name of a base": [
        ("  calculator:\n", "  adder:\n"),
        ("bases: [calculator]", "bases: [adder]"),
        ("bases: calculator, s", "bases: adder, s"),
    ],
    "the name of a dataset": [("  knowledge: {", "  lore: {")],
    "the name of a sample": [("  all: {", "  whole: {"), ("[all, w", "[whole, w"), *SAMPLES],
    "the name of a recipe": [("  decay: {", "  falling: {"), ("recipes: [decay]", "recipes: [falling]")],
    "the name of a block": [("  schedules: {", "  comparison: {")],
    "a reason": [("out of memory", "no time")],
    "options of the analysis": [("bootstrap_draws: 200", "bootstrap_draws: 300")],
    "what is done where rows are too few": [("size: 40", "size: 40, shortfall: take_all")],
    "the number of items that is expected": [("shots: [0, 2]", "shots: [0, 2], expected_items: 7")],
    "the limit of characters that holds anyway": [("turns: first,", "turns: first, max_characters: 200000,")],
    "weights as they are published": [("revision: 0123abc}", "revision: 0123abc}\n    cast: null")],
    "no second source": [("revision: 0123abc", "revision: 0123abc, otherwise: null")],
}


@pytest.mark.parametrize("edits", NEUTRAL.values(), ids=NEUTRAL)
def test_what_is_not_science_changes_no_hash(edits: list[tuple[str, str]], study: Path, planned: Plan) -> None:
    assert hashes(plan_of(write_study(study, *edits))) == hashes(planned)


RUNS = {"train", "evaluate", "weights"}
TOKENS = {"tokens", "perplexity"} | RUNS
TEXTS = {"sample", "similarity", "contamination", "compared"} | TOKENS
MATH = "math: {micro: {topic: math, rows: 60}}"
# an edit, and the stages whose hashes change with it
MEANT: dict[str, tuple[tuple[str, str], set[str]]] = {
    "learning rate": (("full, learning_rate: 1e-3, schedule: con", "full, learning_rate: 2e-3, schedule: con"), RUNS),
    "batch size": (("batch_size: 16", "batch_size: 8"), RUNS),
    "adapter's rank": (("rank: 4", "rank: 8"), RUNS),
    "an epoch more": (("keep: [1, 2, 4]", "keep: [1, 2, 3, 4]"), RUNS),
    "seed of a base": (("seed: 2, steps", "seed: 3, steps"), {"base", "perplexity"} | RUNS),
    "revision": (("0123abc", "0123abd"), {"base"} | TOKENS),
    "threads": (("seeds: [0, 1]\n", "seeds: [0, 1]\nthreads: 2\n"), {"base", "perplexity"} | RUNS),
    "size of a sample": (("size: 40", "size: 41"), TEXTS),
    "rows of a dataset": ((MATH, MATH.replace("60", "61")), {"dataset"} | TEXTS),
    "a filter": (("lang: [en]", "lang: [de]"), {"dataset"} | TEXTS),
    "the longest row": (("turns: first,", "turns: first, max_characters: 900,"), {"dataset"} | TEXTS),
    "weights in another type": (("revision: 0123abc}", "revision: 0123abc}\n    cast: bf16"), {"base"} | TOKENS),
    "template": (
        ("seeds: [0, 1]\n", 'seeds: [0, 1]\ntemplate: {completion_prefix: ""}\n'),
        {"tokenizer", "base"} | TEXTS,
    ),
    "items of a benchmark": (("items: 20", "items: 21"), {"benchmark", "similarity", "contamination", "evaluate"}),
    "words of an n-gram": (("seeds: [0, 1]\n", "seeds: [0, 1]\nsimilarity: {ngram: 2}\n"), {"similarity"}),
    "rows that hold an item dropped": (("analyses:", "decontamination: {action: drop}\nanalyses:"), TOKENS),
    "threshold of that": (("analyses:", "decontamination: {threshold: 0.9}\nanalyses:"), {"contamination"}),
    "shots": (("shots: [0, 2]", "shots: [0, 3]"), {"evaluate"}),
    "longest generation": (("max_tokens: 8", "max_tokens: 9"), {"evaluate"}),
    "precision of evaluation": (("th: 256}", "th: 256, precision: bf16}"), {"evaluate", "perplexity"}),
}


@pytest.mark.parametrize(("edit", "stages"), MEANT.values(), ids=MEANT)
def test_science_changes_the_hashes_of_what_follows_from_it(
    edit: tuple[str, str], stages: set[str], study: Path, planned: Plan
) -> None:
    changed = set(hashes(plan_of(write_study(study, edit)))) ^ set(hashes(planned))
    assert {stage for stage, _ in changed} == stages


def test_a_learning_rate_changes_its_own_runs_only(study: Path, planned: Plan) -> None:
    other = plan_of(write_study(study, ("learning_rate: 5e-3", "learning_rate: 4e-3")))
    changed = {key for key in planned.matrix.runs if other.job("train", key).hash != planned.job("train", key).hash}
    assert changed == {key for key in planned.matrix.runs if key.recipe == "lora"}


def test_kept_epochs_are_no_part_of_a_run(study: Path, planned: Plan) -> None:
    other = plan_of(write_study(study, ("keep: [1, 2, 4]", "keep: [3]")))
    assert run_id(other) == run_id(planned)
    assert (
        Path(other.job("train", RunKey("reader", "math-40", "full", 1)).output).parent
        == Path(planned.job("train", RunKey("reader", "math-40", "full", 1)).output).parent
    )


def test_the_length_of_a_run_counts_unless_its_schedule_is_constant(study: Path, planned: Plan) -> None:
    longer = plan_of(write_study(study, ("epochs: 4, keep: [1, 2, 4]", "epochs: 9, keep: [1, 2, 4]")))
    assert run_id(longer) == run_id(planned)
    stretched = plan_of(write_study(study, ("schedule: cosine, epochs: 4", "schedule: cosine, epochs: 9")))
    assert run_id(stretched, recipe="decay") != run_id(planned, recipe="decay")


FEWER = (MATH, MATH.replace("60", "30"))
ALL = ("size: 40", "size: 40, shortfall: take_all")


def test_rows_known_to_be_fewer_are_what_a_sample_holds(study: Path, planned: Plan) -> None:
    """Asking for more than there is, for just that, or for all, is the same sample; the other datasets' do not move."""
    taken = plan_of(write_study(study, FEWER, ALL))
    assert taken.job("sample", Sample("math-40")).identity["size"] == 30
    assert taken.job("sample", Sample("knowledge-40")).hash == planned.job("sample", Sample("knowledge-40")).hash
    # what cleaning leaves of a file is not known while planning
    assert taken.job("sample", Sample("chats-40")).identity["size"] == 40
    assert run_id(taken, sample="knowledge-40") == run_id(planned, sample="knowledge-40")
    more = plan_of(write_study(study, FEWER, ("size: 40", "size: 50, shortfall: take_all")))
    assert more.job("sample", Sample("math-40")).hash == taken.job("sample", Sample("math-40")).hash
    whole = ('"{dataset}-40": {datasets: "*", size: 40}', '"{dataset}-40": {datasets: "*"}')
    all_rows = plan_of(write_study(study, FEWER, whole))
    assert all_rows.job("sample", Sample("math-40")).hash == taken.job("sample", Sample("math-40")).hash


def test_rows_known_to_be_too_few_are_refused_while_planning(study: Path) -> None:
    with pytest.raises(
        StudyError, match=r"samples\.\{dataset\}-40\.size: found 40, but dataset 'math' has 30 rows; lower it"
    ):
        plan_of(write_study(study, FEWER))


def test_what_is_prepared_is_held_against_what_the_study_asks(study: Path, planned: Plan, tmp_path: Path) -> None:
    """Numbers that are no part of an identity, on results that are there already."""
    chats, facts = planned.job("sample", Sample("chats-40")), planned.job("benchmark", Benchmark("facts"))
    write_json(tmp_path / chats.output, {"sources": {"chats": {"available": 39}}})
    write_json(tmp_path / facts.output, {"worked_examples": 2, "in_source": 8})
    check_examples(plan_of(write_study(study, ALL)), tmp_path)
    with pytest.raises(StudyError, match=r"samples\.chats-40: 40 rows of chats are asked for, 39 are there after"):
        check_examples(planned, tmp_path)
    expects = ("shots: [0, 2]", "shots: [0, 2], expected_items: 7")
    with pytest.raises(StudyError, match=r"benchmarks\.facts\.expected_items: found 7, but .* holds 8 items"):
        check_examples(plan_of(write_study(study, ALL, expects)), tmp_path)


def test_a_seed_and_a_base_make_another_run(planned: Plan) -> None:
    ids = [str(spec.identity["run"]) for spec in planned.select("train")]
    assert len(set(ids)) == len(ids) == 24


def test_the_name_of_a_benchmark_is_no_part_of_a_run(study: Path, planned: Plan) -> None:
    for edits in ([], [("analyses:", "decontamination: {action: drop}\nanalyses:")]):
        before = plan_of(write_study(study, *edits))
        renamed = plan_of(write_study(study, ("  sums: {", "  zums: {"), *edits))
        assert {key: renamed.job("train", key) for key in renamed.matrix.runs} == {
            key: before.job("train", key) for key in before.matrix.runs
        }


def test_the_content_of_a_local_file_counts_and_its_place_does_not(tmp_path: Path, planned: Plan, study: Path) -> None:
    moved = write_study(tmp_path)
    assert hashes(plan_of(moved)) == hashes(planned)
    (tmp_path / "chats.jsonl").write_text("other content\n")
    changed = plan_of(moved)
    assert changed.job("dataset", Dataset("chats")).hash != planned.job("dataset", Dataset("chats")).hash
    assert changed.job("dataset", Dataset("math")).hash == planned.job("dataset", Dataset("math")).hash
    assert run_id(changed, sample="chats-40") != run_id(planned, sample="chats-40")
    assert run_id(changed) == run_id(planned)


def test_the_name_of_a_local_file_counts_since_rows_are_drawn_by_it(tmp_path: Path) -> None:
    rows = [{"prompt": f"{number} + 1?", "completion": str(number + 1)} for number in range(60)]
    edit = ("{path: chats.jsonl, format: messages, turns: first, keep: {lang: [en]}}", "{path: chats.jsonl}")
    drawn, sources = [], []
    for name in ("chats", "talks"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = write_study(tmp_path, edit)
        path.write_text(path.read_text().replace("chats.jsonl", f"{name}.jsonl"))
        plan = plan_of(path)
        sources.append(plan.job("dataset", Dataset("chats")).hash)
        for spec in (plan.job("dataset", Dataset("chats")), plan.job("sample", Sample("chats-40"))):
            do(spec.content(), tmp_path)
        made = (tmp_path / plan.job("sample", Sample("chats-40")).output).with_name("rows.parquet")
        drawn.append(pl.read_parquet(made)["prompt"].to_list())
    assert drawn[0] != drawn[1]
    assert sources[0] != sources[1]


def test_the_name_of_a_benchmarks_file_counts(study: Path, planned: Plan) -> None:
    (study / "others.jsonl").write_bytes((study / "facts.jsonl").read_bytes())
    for key in ("{path", " shots_path"):
        path = write_study(study)
        path.write_text(path.read_text().replace(f"{key}: {study}/facts", f"{key}: {study}/others"))
        other = plan_of(path)
        assert other.job("benchmark", Benchmark("facts")).hash != planned.job("benchmark", Benchmark("facts")).hash


def test_planning_elsewhere_gives_the_same_identities(
    planned: Plan, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = plan_of(write_study(study))
    assert {path: spec.content() for path, spec in other.by_output.items()} == {
        path: spec.content() for path, spec in planned.by_output.items()
    }


def test_hashes_do_not_depend_on_the_process(planned: Plan, study: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from tests.unit.helpers import plan_of; "
        "print(json.dumps(sorted(plan_of(Path(sys.argv[1])).by_output)))"
    )
    path = write_study(study)
    root = Path(__file__).resolve().parents[2]
    seeded = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=seeded, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == sorted(planned.by_output)


def test_a_new_base_leaves_the_others_as_they_are(study: Path, planned: Plan) -> None:
    other = plan_of(
        write_study(study, ("  reader:\n", "  newcomer:\n    micro: {seed: 9, positions: 2048}\n  reader:\n"))
    )
    assert set(planned.by_output) < set(other.by_output)
    assert {
        spec.identity.get("run", "newcomer") for path, spec in other.by_output.items() if path not in planned.by_output
    } & {run_id(planned)} == set()


def test_keeping_items_among_their_own_examples_moves_scores_only(study: Path, planned: Plan) -> None:
    shown = "shots_path: facts.jsonl"
    assert plan_of(write_study(study, (shown, f"{shown}, own_example: exclude"))).specs == planned.specs
    kept = plan_of(write_study(study, (shown, f"{shown}, own_example: keep")))
    moved = {spec.stage for path, spec in kept.by_output.items() if path not in planned.by_output}
    assert moved == {"evaluate"}
    # what is prepared is the same; its job is told how many examples are wanted of which
    assert kept.job("benchmark", Benchmark("facts")).hash == planned.job("benchmark", Benchmark("facts")).hash
    assert kept.job("benchmark", Benchmark("facts")).labels == {"shots": 2, "own_example": "keep"}


def test_leave_to_move_moves_nothing(study: Path, planned: Plan) -> None:
    assert (
        plan_of(write_study(study, ("seeds: [0, 1]\n", "seeds: [0, 1]\nallow_moving: true\n"))).specs == planned.specs
    )


def test_a_collision_of_hashes_is_an_error(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sft_atlas.study.identity.digest", lambda value: "00000000")
    with pytest.raises(StudyError, match="two identities share the path"):
        plan_of(write_study(study))


def test_a_stage_version_reaches_all_that_follows(study: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(hashes(planned))
    tokens = stages()["tokens"]
    monkeypatch.setitem(stages(), "tokens", replace(tokens, version=tokens.version + 1))
    changed = set(hashes(plan_of(write_study(study)))) - before
    assert {stage for stage, _ in changed} == {"tokens", "perplexity", "train", "evaluate", "weights"}


def test_a_hash_is_that_of_sorted_json() -> None:
    # printf '{"a":[1.5,"é"],"b":null}' | sha256sum
    assert digest({"b": None, "a": [1.5, "é"]}) == "48bdfd22"
    assert canonical({"b": 1, "a": {"d": 1e-5, "c": True}}) == '{"a":{"c":true,"d":1e-05},"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_the_name_of_a_frozen_file_holds_the_hash_once() -> None:
    assert spec_file("runs/a/train-1a2b3c4d.json", "1a2b3c4d") == "runs/a/train-1a2b3c4d.spec.json"
    assert spec_file("bases/b-1a2b3c4d/manifest.json", "1a2b3c4d") == "bases/b-1a2b3c4d/manifest-1a2b3c4d.spec.json"


def test_a_fingerprint_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"0123456789" * 500_000)
    assert fingerprint(file) == sha256(file)[:16]
    monkeypatch.setattr(hashing, "WHOLE_FILE_LIMIT", 1 << 20)
    large = fingerprint(file)
    assert large != sha256(file)[:16]
    os.utime(file, (1, 1))
    assert fingerprint(file) == large
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"x")
    assert fingerprint(file) != large
    longer = tmp_path / "longer.jsonl"
    longer.write_bytes(b"0123456789" * 500_001)
    assert fingerprint(longer) != large


def test_the_fingerprint_of_a_folder_is_that_of_its_model_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / name).write_text(name)
    before = fingerprint(folder)
    (folder / "README.md").write_text("changed")
    assert fingerprint(folder) == before
    assert fingerprint(folder.rename(tmp_path / "moved")) == before
    (tmp_path / "moved/config.json").write_text("{}")
    assert fingerprint(tmp_path / "moved") != before
