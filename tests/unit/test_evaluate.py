"""Benchmarks against hand-rolled likelihoods and greedy generation; prompts to the letter; scores that are kept."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_atlas.analysis.collected import Found, Identity
from sft_atlas.data.examples import WorkedExamples
from sft_atlas.data.prompt import completion, prompt
from sft_atlas.errors import DataError
from sft_atlas.files import write_record
from sft_atlas.models.checkpoint import load_checkpoint
from sft_atlas.models.device import load_model, prepare
from sft_atlas.stages.benchmark.run import SCHEMA as ITEMS
from sft_atlas.stages.evaluate import run as evaluate
from sft_atlas.stages.evaluate.run import ITEM_SCHEMA, SCHEMA, build_task
from sft_atlas.stages.evaluate.spec import Asked
from sft_atlas.stages.evaluate.tables import gather
from sft_atlas.study.measures import Evaluation
from sft_atlas.study.model import Template
from tests.unit.helpers import content, do, snapshot, stand_in

Row = dict[str, Any]
TEMPLATE = Template()
WORDS = ["cat", "the dog", "23", "日本", "a b c d", "because it is", "no", "###"]
BUILT = "benchmarks/{}-00000000"


def benchmark(root: Path, name: str, rows: list[Row], examples: Sequence[Row] = (), **facts: Any) -> str:
    """A prepared benchmark; rows give what differs from an empty item."""

    def table(items: Sequence[Row]) -> pl.DataFrame:
        empty = {"choices": None, "gold": None, "answers": None, "example": "", "group": ""}
        return pl.DataFrame([{"item": f"i:{n}", **empty, **item} for n, item in enumerate(items)], schema=ITEMS)

    defaults = {"kind": "generation", "scored": True, "pattern": None, "compare": "equal"}
    place = stand_in(root, BUILT.format(name), table(rows), "items.parquet", **defaults | facts)
    if examples:
        table(examples).write_parquet((root / place).with_name("examples.parquet"))
    return place


GROUPS = ("odd", "even")
CHOICES: list[Row] = [
    {
        "instruction": f"Which is {a} + {a}?",
        "choices": WORDS[: 2 + a % 5],
        "gold": a % 2,
        "group": ("odd", "even")[a % 2],
    }
    for a in range(25)
]
QUESTIONS = [{"instruction": f"What is {a} times {b}? " + "Think. " * (a % 4)} for a in range(4) for b in range(3)]
SHOWN = [
    {"instruction": "1 + 1?", "example": "2", "group": "odd"},
    {"instruction": "2 + 2?", "example": "4", "group": "even"},
    {"instruction": "3 + 3?", "example": "6", "group": "odd"},
    {"instruction": "4 + 4?", "example": "8", "group": "even"},
]


class Bench:
    """A results folder with a base, in which benchmarks are scored."""

    def __init__(self, root: Path, base: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.root, self.base, self.tokenizer = root, base, tokenizer
        self.model: PreTrainedModel = load_model((root / base).with_name("model"), "fp32", prepare(1)).eval()

    def score(
        self, benchmarks: dict[str, dict[str, Any]], epochs: tuple[int, ...] = (0,), model: str = "", **settings: Any
    ) -> pl.DataFrame:
        """Run the stage on prepared benchmarks, by name, with what they declare."""
        declared = {
            name: {"items": name.rpartition("/")[2], "shots": [0], "max_tokens": 8, "stop": ["\n"]} | options
            for name, options in benchmarks.items()
        }
        places = {name: f"{BUILT.format(options['items'])}/manifest.json" for name, options in declared.items()}
        identity = {
            "model": "x",
            "epochs": list(epochs),
            "template": TEMPLATE.model_dump(),
            "settings": Evaluation(batch_size=4, max_length=200).model_dump() | settings,
            "threads": 1,
            "benchmarks": declared,
        }
        inputs = {"model": model or self.base, "base": self.base, "benchmarks": places}
        folder = str(Path(inputs["model"]).parent)
        spec = content("evaluate", f"{folder}/scores-{len(benchmarks)}.parquet", identity, inputs)
        do(spec, self.root)
        self.output = self.root / spec["output"]
        return pl.read_parquet(self.output)

    def items(self, row: int = 0) -> pl.DataFrame:
        """The per-item results behind a row of the last table."""
        return pl.read_parquet(self.output.parent / pl.read_parquet(self.output)["items"][row])


@pytest.fixture(scope="module")
def place(place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], Bench]:
    def made(root: Path) -> Bench:
        benchmark(root, "choose", CHOICES, SHOWN, kind="multiple_choice")
        benchmark(root, "generate", QUESTIONS)
        return Bench(root, place_base(root), tokenizer)

    return made


@pytest.fixture(scope="module")
def bench(place: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return place(tmp_path_factory.mktemp("bench"))


@torch.no_grad()
def log_likelihood(bench: Bench, context: str, continuation: str) -> float:
    """log p(continuation | context), token by token, of one sequence without padding."""
    start = len(bench.tokenizer(context)["input_ids"])
    ids = torch.tensor([bench.tokenizer(context + continuation)["input_ids"]])
    logs = torch.log_softmax(bench.model(input_ids=ids).logits[0, :-1].double(), dim=-1)
    return float(logs[range(start - 1, ids.shape[1] - 1), ids[0, start:]].sum())


@torch.no_grad()
def greedy(bench: Bench, context: str, most: int, room: int = 10_000) -> str:
    """What the model says, the likeliest token each time, seeing the last `room` tokens of the context."""
    ids = bench.tokenizer(context)["input_ids"][-room:]
    said: list[int] = []
    for _ in range(most):
        token = int(bench.model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax())
        if token == bench.tokenizer.eos_token_id:
            break
        said.append(token)
    return str(bench.tokenizer.decode(said))


@pytest.mark.parametrize("shots", [0, 2])
def test_accuracy_is_that_of_the_likeliest_choice(shots: int, bench: Bench) -> None:
    table = bench.score({"choose": {"shots": [shots]}})
    preferred, right = [], []
    for item in CHOICES:
        fitting = [example for example in SHOWN if example["group"] == item["group"]][:shots]
        shown = [prompt(TEMPLATE, example["instruction"]) + f" {example['example']}\n\n" for example in fitting]
        context = "".join(shown) + prompt(TEMPLATE, item["instruction"])
        values = [log_likelihood(bench, context, completion(TEMPLATE, choice)) for choice in item["choices"]]
        preferred.append(item["choices"][values.index(max(values))])
        right.append(float(values.index(max(values)) == item["gold"]))
    assert bench.items()["response"].to_list() == preferred
    assert bench.items()["score"].to_list() == right
    assert 0 < sum(right) < len(right)
    row = table.row(0, named=True)
    n, mean = len(right), sum(right) / len(right)
    assert (row["epoch"], row["benchmark"], row["shots"], row["metric"]) == (0, "choose", shots, "accuracy")
    assert row["score"] == pytest.approx(mean)
    assert row["stderr"] == pytest.approx((mean * (1 - mean) / (n - 1)) ** 0.5)
    assert row["n"] == n


def test_exact_match_is_that_of_greedy_generation(bench: Bench, tmp_path: Path) -> None:
    said = [greedy(bench, prompt(TEMPLATE, item["instruction"]), 8) for item in QUESTIONS]
    assert len(set(said)) > 3
    # every other item is right
    rows = [item | {"answers": ["?", said[n].strip()][: 1 + n % 2]} for n, item in enumerate(QUESTIONS)]
    benchmark(bench.root, "answered", rows)
    table = bench.score({"answered": {"stop": ["never said"]}})
    assert bench.items()["response"].to_list() == said
    assert bench.items()["score"].to_list() == [float(n % 2) for n in range(len(rows))]
    assert table.select("metric", "score", "n").row(0) == ("exact_match", 0.5, 12)


def test_generation_ends_at_a_stop_text(bench: Bench) -> None:
    said = [greedy(bench, prompt(TEMPLATE, item["instruction"]), 8) for item in QUESTIONS]
    stop = said[0][len(said[0]) // 2]
    bench.score({"generate": {"stop": [stop, "never said"]}})
    assert bench.items()["response"].to_list() == [answer.split(stop)[0] for answer in said]
    assert any(stop in answer for answer in said)


def test_a_long_context_is_cut_at_its_beginning(bench: Bench) -> None:
    bench.score({"generate": {"stop": ["never said"]}}, max_length=28)
    contexts = [prompt(TEMPLATE, item["instruction"]) for item in QUESTIONS]
    assert max(len(bench.tokenizer(context)["input_ids"]) for context in contexts) > 20
    assert bench.items()["response"].to_list() == [greedy(bench, context, 8, room=20) for context in contexts]


def test_batches_change_nothing(bench: Bench) -> None:
    bench.score({"choose": {}, "generate": {}}, batch_size=1)
    alone = [bench.items(row) for row in (0, 1)]
    bench.score({"choose": {}, "generate": {}}, batch_size=7)
    assert [bench.items(row).equals(alone[row]) for row in (0, 1)] == [True, True]


def test_tables_have_their_schemas(bench: Bench) -> None:
    table = bench.score({"choose": {"shots": [0, 2]}, "generate": {}})
    assert dict(table.schema) == SCHEMA
    assert table.select("benchmark", "shots").rows() == [("choose", 0), ("choose", 2), ("generate", 0)]
    items = bench.items(1)
    assert dict(items.schema) == ITEM_SCHEMA
    assert items["item"].to_list() == [f"i:{n}" for n in range(len(CHOICES))]


def test_what_has_no_answers_is_generated_and_not_scored(bench: Bench) -> None:
    benchmark(bench.root, "open", QUESTIONS, scored=False)
    table = bench.score({"open": {}})
    assert table.select("score", "stderr", "n").row(0) == (None, None, 0)
    assert bench.items()["score"].null_count() == len(QUESTIONS)
    assert bench.items()["response"].str.len_chars().min() > 0


def test_what_was_not_scored_is_collected_as_missing(bench: Bench) -> None:
    benchmark(bench.root, "open", QUESTIONS, scored=False)
    bench.score({"open": {}, "choose": {}})
    scores = bench.output.relative_to(bench.root).as_posix()
    none: dict[str, Any] = {name: {} for name in ("tokens", "samples", "similarity", "contamination", "benchmarks")}
    base = {"scores": scores, "perplexity": None}
    identity = none | {"runs": [], "missing": [], "bases": {"tiny": base}, "matches": {}}
    do(content("collect", "mine/collect.json", identity, {"results": [scores]}), bench.root)
    missing = pl.read_parquet(bench.root / "mine/tables/missing.parquet")
    assert missing.select("base", "sample", "epoch", "benchmark", "reason").rows() == [
        ("tiny", None, 0, "open", "generated, not scored")
    ]


def test_one_item_has_no_standard_error(bench: Bench) -> None:
    benchmark(bench.root, "one", CHOICES[:1], kind="multiple_choice")
    assert bench.score({"one": {}}).select("stderr", "n").row(0) == (None, 1)


# --- prompts


def contexts(bench: Bench, shots: int, template: Template = TEMPLATE) -> list[str]:
    """What lm-eval is asked to continue, item by item."""
    manifest = bench.root / BUILT.format("choose") / "manifest.json"
    task = build_task(manifest, "choose", shots, Asked(items="choose", shots=[shots], stop=[], max_tokens=1), template)
    task.build_all_requests()
    return [request.args[0] for request in task.instances if request.idx == 0]


def test_worked_examples_are_written_as_in_training(bench: Bench) -> None:
    odd, even, *_ = contexts(bench, 2)
    assert odd == (
        "###Question: 1 + 1?\n###Answer: 2\n\n"
        "###Question: 3 + 3?\n###Answer: 6\n\n"
        "###Question: Which is 0 + 0?\n###Answer:"
    )
    assert even.startswith("###Question: 2 + 2?\n###Answer: 4\n\n###Question: 4 + 4?\n###Answer: 8\n\n")
    assert contexts(bench, 0)[0] == "###Question: Which is 0 + 0?\n###Answer:"


def test_another_template_is_followed(bench: Bench) -> None:
    template = Template(prompt="Q {instruction}\nA", input_separator="\n", completion_prefix="= ")
    assert contexts(bench, 1, template)[0] == "Q 1 + 1?\nA= 2\n\nQ Which is 0 + 0?\nA"


def test_too_few_worked_examples_are_an_error(bench: Bench) -> None:
    with pytest.raises(DataError, match="item i:0: 3 worked examples are asked for, found 2 that fit it"):
        contexts(bench, 3)


# --- an item among its own worked examples

# the second asks what the first asks, in other spacing
SAME = [
    {"instruction": f"{a} + {a}{' ' * (a % 2)}?", "choices": ["yes", "no"], "gold": a % 2, "example": "yes"}
    for a in (1, 1, 3, 4, 5, 7)
]
SAME[1]["instruction"] = "1 +  1 ?"


def shown_to(bench: Bench, name: str, shots: int, own_example: str = "exclude") -> list[list[str]]:
    """The questions of the worked examples before each item, and last its own, without white space."""
    manifest = bench.root / BUILT.format(name) / "manifest.json"
    asked = {"items": name, "shots": [shots], "stop": [], "max_tokens": 1, "own_example": own_example}
    task = build_task(manifest, name, shots, Asked.model_validate(asked), TEMPLATE)
    task.build_all_requests()
    texts = [request.args[0] for request in task.instances if request.idx == 0]
    return [["".join(part.split("\n")[0].split()) for part in text.split("###Question:")[1:]] for text in texts]


def test_an_item_is_not_among_its_own_worked_examples(bench: Bench) -> None:
    benchmark(bench.root, "same", SAME, SAME, kind="multiple_choice")
    shown = shown_to(bench, "same", 3)
    assert all(own not in examples for *examples, own in shown)
    # the next one is taken, and the order stays
    assert shown[0] == ["3+3?", "4+4?", "5+5?", "1+1?"]
    assert shown[2] == ["1+1?", "1+1?", "4+4?", "3+3?"]
    assert shown[5] == ["1+1?", "1+1?", "3+3?", "7+7?"]
    with pytest.raises(DataError, match="item i:0: 5 worked examples are asked for, found 4 that fit it, itself left"):
        shown_to(bench, "same", 5)


def test_a_published_definition_keeps_it_and_the_score_of_the_others_stands_beside(bench: Bench) -> None:
    benchmark(bench.root, "same", SAME, SAME, kind="multiple_choice")
    assert shown_to(bench, "same", 3, "keep")[0] == ["1+1?", "1+1?", "3+3?", "1+1?"]
    table = bench.score({"same": {"shots": [0, 3], "own_example": "keep"}})
    assert table.select("benchmark", "shots", "n").rows() == [
        ("same", 0, 6),
        ("same", 3, 6),
        ("same/without_leaks", 3, 3),
    ]
    whole, rest = bench.items(1), bench.items(2)
    assert whole["leaked"].to_list() == [True, True, True, False, False, False]
    assert rest.equals(whole[3:].drop("leaked"))
    assert table["score"][2] == pytest.approx(sum(rest["score"]) / 3)
    assert table["score"][1] == pytest.approx(sum(whole["score"]) / 6)
    # nothing is leaked without examples
    assert dict(bench.items(0).schema) == ITEM_SCHEMA


def test_without_leaks_both_ways_give_the_same_bytes(bench: Bench) -> None:
    kept = bench.score({"choose": {"shots": [2], "own_example": "keep"}})
    files = [(bench.output.parent / kept["items"][0]).read_bytes()]
    plain = bench.score({"choose": {"shots": [2]}})
    files.append((bench.output.parent / plain["items"][0]).read_bytes())
    assert files[0] == files[1]
    assert kept.drop("items").equals(plain.drop("items")) and plain.height == 1


def test_the_score_without_leaks_is_collected_as_a_part(bench: Bench) -> None:
    benchmark(bench.root, "same", SAME, SAME, kind="multiple_choice")
    bench.score({"same": {"shots": [3], "own_example": "keep"}})
    scores = bench.output.relative_to(bench.root).as_posix()
    cell = {"base": "tiny", "sample": "s", "recipe": "r", "seed": 0, "epochs": {"0": "b"}, "dataset": "d"}
    cell |= {"held_out": None, "method": "full", "schedule": "constant", "train": None, "weights": None}
    cell |= {"tokens": "m.json", "scores": scores, "run": "0"}
    identity = {"runs": [cell], "bases": {"tiny": {"scores": scores}}, "matches": {"same": ["d"]}, "missing": []}
    identity |= {name: {} for name in ("tokens", "samples", "benchmarks")}
    gathered = gather(Found(Identity.model_validate(identity), bench.root))
    assert [(row["benchmark"], row["gain"], row["n"], row["matched"]) for row in gathered["gains"]] == [
        ("same", 0.0, 6, True),
        ("same/without_leaks", 0.0, 3, True),
    ]


class Counted(dict[str, Any]):
    """An example that counts how often its group is looked at."""

    looked = 0

    def __getitem__(self, key: str) -> Any:
        Counted.looked += key == "group"
        return super().__getitem__(key)


def test_examples_are_sorted_into_groups_once_and_not_for_every_item() -> None:
    examples = [Counted(instruction=f"{n}?", example="x", group=str(n % 7)) for n in range(700)]
    shown = WorkedExamples(TEMPLATE, examples, 5)
    for n in range(300):
        assert shown.text({"item": n, "instruction": f"{n} again?", "group": str(n % 9)}).count("Question") == 5
    assert Counted.looked == len(examples)


# --- what is kept


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The tasks of every call of lm-eval."""
    calls: list[list[str]] = []
    original = evaluate.evaluate

    def spy(**arguments: Any) -> Any:
        calls.append(sorted(arguments["task_dict"]))
        return original(**arguments)

    monkeypatch.setattr(evaluate, "evaluate", spy)
    return calls


def test_what_was_scored_is_not_scored_again(
    place: Callable[[Path], Bench], scored: list[list[str]], tmp_path: Path
) -> None:
    own = place(tmp_path)
    first = own.score({"choose": {}})
    before = snapshot(own.output.parent / "scores")
    assert own.score({"choose": {}}).equals(first)
    assert scored == [["choose@0"]]
    # a benchmark and a number of shots more: the new ones alone
    wider = own.score({"choose": {"shots": [0, 1]}, "generate": {}})
    assert scored[1:] == [["choose@1", "generate@0"]]
    assert before.items() <= snapshot(own.output.parent / "scores").items()
    assert wider.filter(benchmark="choose", shots=0).equals(first)
    # under another name: nothing, since it is the same benchmark
    renamed = own.score({"other/choose": {}})
    assert len(scored) == 2
    assert renamed.drop("benchmark").equals(first.drop("benchmark"))


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stop texts": ({"stop": ["."]}, {}),
    "longest generation": ({"max_tokens": 4}, {}),
    "batch size": ({}, {"batch_size": 2}),
    "longest sequence": ({}, {"max_length": 190}),
    "precision": ({}, {"precision": "bf16"}),
}


@pytest.mark.parametrize(("options", "settings"), CHANGED.values(), ids=CHANGED)
def test_other_settings_are_scored_beside_the_old_ones(
    options: dict[str, Any], settings: dict[str, Any], bench: Bench, scored: list[list[str]]
) -> None:
    bench.score({"generate": {}})
    before = snapshot(bench.output.parent / "scores")
    scored.clear()
    bench.score({"generate": options}, **settings)
    assert scored == [["generate@0"]]
    assert before.items() < snapshot(bench.output.parent / "scores").items()


def test_other_items_are_scored_again(place: Callable[[Path], Bench], scored: list[list[str]], tmp_path: Path) -> None:
    own = place(tmp_path)
    own.score({"generate": {}})
    benchmark(own.root, "generate", QUESTIONS[:3])
    assert own.score({"generate": {}})["n"][0] == 3
    assert len(scored) == 2


def test_a_damaged_piece_is_scored_again(
    place: Callable[[Path], Bench], scored: list[list[str]], tmp_path: Path
) -> None:
    own = place(tmp_path)
    table = own.score({"generate": {}})
    piece = own.output.parent / table["items"][0]
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-1])
    own.score({"generate": {}})
    assert len(scored) == 2
    assert piece.read_bytes() == whole


# --- checkpoints


def checkpoint(bench: Bench, epoch: int, place_base: Callable[..., str]) -> None:
    """Another random model as a kept epoch of a run."""
    other = bench.root / f"other-{epoch}"
    source = (other / place_base(other, seed=epoch)).with_name("model")
    folder = bench.root / f"runs/tiny/epoch-{epoch:02d}"
    shutil.copytree(source, folder / "model")
    write_record(folder / "checkpoint.json", {"epoch": epoch}, [folder / "model"])


def test_every_kept_epoch_is_scored_with_its_own_weights(
    place: Callable[[Path], Bench], place_base: Callable[..., str], scored: list[list[str]], tmp_path: Path
) -> None:
    own = place(tmp_path)
    for epoch in (1, 3):
        checkpoint(own, epoch, place_base)
    first = own.score({"generate": {}}, (1,), "runs/tiny/train-0.json")
    before = snapshot(tmp_path / "runs/tiny/epoch-01")
    both = own.score({"generate": {}}, (1, 3), "runs/tiny/train-0.json")
    assert both["epoch"].to_list() == [1, 3]
    assert both[:1].equals(first)
    assert len(scored) == 2
    assert snapshot(tmp_path / "runs/tiny/epoch-01") == before
    assert both["items"][1].startswith("epoch-03/scores/")
    for row, epoch in enumerate((1, 3)):
        own.model = load_model(tmp_path / f"runs/tiny/epoch-{epoch:02d}/model", "fp32", prepare(1)).eval()
        said = [greedy(own, prompt(TEMPLATE, item["instruction"]), 8).split("\n")[0] for item in QUESTIONS]
        assert own.items(row)["response"].to_list() == said


def test_a_checkpoint_is_loaded_with_the_declared_threads_and_type(
    place: Callable[[Path], Bench], place_base: Callable[..., str], tmp_path: Path
) -> None:
    own = place(tmp_path)
    checkpoint(own, 1, place_base)
    device = prepare(2)
    try:
        model = load_checkpoint(tmp_path / "runs/tiny/train-0.json", 1, tmp_path / own.base, "bf16", device)
        assert torch.get_num_threads() == 2
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    finally:
        prepare(1)
