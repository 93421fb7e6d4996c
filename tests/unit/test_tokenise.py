"""Token ids and labels: what is trained, what is cut, and that evaluation sees the very same ids."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sft_atlas.data.prompt import completion, prompt
from sft_atlas.errors import DataError
from sft_atlas.files import read_json, write_record
from sft_atlas.micro.byte_pairs import END
from sft_atlas.models.device import load_model, prepare
from sft_atlas.models.tokenizer import IGNORED, load_tokenizer, open_tokenizer
from sft_atlas.stages.evaluate.run import build_task
from sft_atlas.stages.evaluate.spec import Asked
from sft_atlas.stages.tokens import run as tokenise
from sft_atlas.stages.tokens.run import audit, measure
from sft_atlas.study.model import Template
from tests.unit.helpers import content, do, stand_in

TEMPLATE = Template()
TEXTS = [
    ("What is 17 + 5?", "22"),
    ("日本語で答えて", "はい"),
    ("List:\n- a\n- b", "a\n\nb  "),
    ("{instruction} <|end|>x <s> \\n %s", "{{ 7 * 7 }}"),
    ("naïve ﷽ 👩‍👩‍👧 e\u0301", "fine"),
]


@pytest.fixture(scope="module")
def with_bos(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """The tiny tokenizer, but one that puts a BOS before every text, as Llama's does."""
    inner = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    inner.add_special_tokens([AddedToken("<s>", special=True)])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    folder = tmp_path_factory.mktemp("with-bos")
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=END).save_pretrained(folder)
    return open_tokenizer(folder)


@pytest.fixture(params=["without BOS", "with BOS"])
def either(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    """Both kinds of tokenizer."""
    return request.getfixturevalue({"without BOS": "tokenizer", "with BOS": "with_bos"}[request.param])


def as_rows(*texts: tuple[str, str]) -> pl.DataFrame:
    """Prompts and completions as the sample stage leaves them."""
    return pl.DataFrame(
        {
            "row": [f"rows.jsonl:{number}" for number in range(1, len(texts) + 1)],
            "prompt": [prompt(TEMPLATE, instruction) for instruction, _ in texts],
            "completion": [completion(TEMPLATE, answer) for _, answer in texts],
            "dataset": ["math"] * len(texts),
        }
    )


def test_completion_and_eos_are_trained_and_nothing_else(either: PreTrainedTokenizerBase) -> None:
    rows = as_rows(*TEXTS)
    table, dropped = tokenise.tokenise(rows, either, 512)
    audit(table, either)
    assert dropped == {"prompt_fills_max_length": 0}
    for (_, answer), ids, labels in zip(TEXTS, table["input_ids"], table["labels"], strict=True):
        trained = [label for label in labels if label != IGNORED]
        assert either.decode(trained) == f" {answer}{END}"
        assert trained[-1] == either.eos_token_id
        start = len(ids) - len(trained)
        assert labels.to_list() == [IGNORED] * start + ids.to_list()[start:]
        assert either.decode(ids[:start].to_list(), skip_special_tokens=False).endswith("###Answer:")


def test_bos_stands_once_where_the_tokenizer_adds_it(
    tokenizer: PreTrainedTokenizerBase, with_bos: PreTrainedTokenizerBase
) -> None:
    rows = as_rows(*TEXTS[:3])
    plain, _ = tokenise.tokenise(rows, tokenizer, 512)
    marked, _ = tokenise.tokenise(rows, with_bos, 512)
    for ids, other in zip(plain["input_ids"], marked["input_ids"], strict=True):
        assert other.to_list() == [with_bos.bos_token_id, *ids]
    assert marked["labels"].list.first().to_list() == [IGNORED] * 3


WRITTEN = [("say <|end|> twice", "it is <|end|> and <s> more"), ("<s>", "<|end|>"), ("<|pad|>", "<s><|end|>")]


def test_control_tokens_in_data_are_text(either: PreTrainedTokenizerBase) -> None:
    table, _ = tokenise.tokenise(as_rows(*WRITTEN), either, 512)
    audit(table, either)
    bos = either.bos_token_id
    for (_, answer), ids, labels in zip(WRITTEN, table["input_ids"], table["labels"], strict=True):
        assert ids.to_list().count(either.eos_token_id) == 1
        assert bos is None or ids.to_list().count(bos) == 1
        assert either.decode([label for label in labels if label != IGNORED]) == f" {answer}{END}"


def test_a_control_token_made_of_data_is_found(either: PreTrainedTokenizerBase) -> None:
    either = copy.deepcopy(either)
    either.split_special_tokens = False
    for row in WRITTEN[::2]:
        table, _ = tokenise.tokenise(as_rows(("a", "b"), row), either, 512)
        with pytest.raises(
            DataError, match=r"row rows\.jsonl:2: token \d+ is the control token '<.*>', which the text"
        ):
            audit(table, either)


def test_a_saved_tokenizer_reads_control_tokens_for_others(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert "split_special_tokens" not in (tmp_path / "tokenizer_config.json").read_text()
    # chats that others write with a published checkpoint need their control tokens
    assert AutoTokenizer.from_pretrained(tmp_path)(END)["input_ids"] == [tokenizer.eos_token_id]
    assert open_tokenizer(tmp_path)(END)["input_ids"] == tokenizer(END)["input_ids"] != [tokenizer.eos_token_id]


def test_an_eos_that_the_tokenizer_adds_is_not_added_again(vocabulary: Path) -> None:
    inner = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    inner.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    ending = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END)
    table, _ = tokenise.tokenise(as_rows(*TEXTS[:3]), ending, 512)
    audit(table, ending)
    for (_, answer), ids, labels in zip(TEXTS, table["input_ids"], table["labels"], strict=False):
        assert ids.to_list().count(ending.eos_token_id) == 1
        assert ending.decode([label for label in labels if label != IGNORED]) == f" {answer}{END}"


def test_a_token_across_the_border_belongs_to_the_completion() -> None:
    inner = Tokenizer(models.BPE({"x": 0, "a": 1, "b": 2, "ab": 3, "</s>": 4}, [("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    merging = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    rows = pl.DataFrame({"row": ["r:1", "r:2"], "prompt": ["xa", "xa"], "completion": ["b", "a"]})
    table, _ = tokenise.tokenise(rows, merging, 8)
    assert table["input_ids"].to_list() == [[0, 3, 4], [0, 1, 1, 4]]
    assert table["labels"].to_list() == [[IGNORED, 3, 4], [IGNORED, IGNORED, 1, 4]]


def test_long_rows_are_cut_at_the_end_and_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = as_rows(("a", "b"), ("a", "one two three four five six seven eight"), ("long " * 40, "lost"))
    whole, _ = tokenise.tokenise(rows, tokenizer, 512)
    lengths = whole["input_ids"].list.len().to_list()
    prompts = [len(tokenizer(text)["input_ids"]) for text in rows["prompt"]]
    limit = prompts[1] + 3
    assert lengths[0] <= limit < lengths[1]
    assert prompts[2] > limit
    cut, dropped = tokenise.tokenise(rows, tokenizer, limit)
    audit(cut, tokenizer)
    assert dropped == {"prompt_fills_max_length": 1}
    assert cut["row"].to_list() == ["rows.jsonl:1", "rows.jsonl:2"]
    assert cut["truncated"].to_list() == [False, True]
    assert cut["input_ids"][1].to_list() == whole["input_ids"][1].to_list()[:limit]
    assert sum(label != IGNORED for label in cut["labels"][1]) == 3
    # a row that just fits is whole, and one token less cuts its EOS
    exact, _ = tokenise.tokenise(rows[:1], tokenizer, lengths[0])
    assert (exact["truncated"][0], exact["labels"][0][-1]) == (False, tokenizer.eos_token_id)
    short, _ = tokenise.tokenise(rows[:1], tokenizer, lengths[0] - 1)
    assert (short["truncated"][0], short["labels"][0][-1] == tokenizer.eos_token_id) == (True, False)


def test_only_too_long_rows_are_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="all 1 rows are longer than max_length 8"):
        tokenise.tokenise(as_rows(("long " * 40, "lost")), tokenizer, 8)


FAULTS: dict[str, tuple[list[int], list[int], bool, str]] = {
    "nothing trained": ([5, 6, 0], [IGNORED] * 3, False, "no token is trained"),
    "another label": ([5, 6, 0], [IGNORED, 7, 0], False, "differs from its token"),
    "no EOS": ([5, 6, 7], [IGNORED, 6, 7], False, "EOS is not trained"),
    "masked EOS": ([5, 6, 0], [IGNORED, 6, IGNORED], False, "EOS is not trained"),
}


@pytest.mark.parametrize(("ids", "labels", "truncated", "said"), FAULTS.values(), ids=FAULTS)
def test_every_fault_of_the_mask_is_found(
    ids: list[int], labels: list[int], truncated: bool, said: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    good = ("r:1", [5, 6, 0], [IGNORED, 6, 0], False)
    table = pl.DataFrame([good, ("r:2", ids, labels, truncated)], schema=tokenise.SCHEMA, orient="row")
    audit(table[:1], tokenizer)
    with pytest.raises(DataError, match=f"row r:2: .*{said}"):
        audit(table, tokenizer)


def test_a_cut_row_needs_no_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    audit(pl.DataFrame([("r:1", [5, 6], [IGNORED, 6], True)], schema=tokenise.SCHEMA, orient="row"), tokenizer)


def test_counts_are_exact() -> None:
    rows = [("a", [5, 6, 0], [IGNORED, 6, 0], False), ("b", [5, 6, 7, 8, 9], [IGNORED] * 4 + [9], True)]
    assert measure(pl.DataFrame(rows, schema=tokenise.SCHEMA, orient="row")) == {
        "rows": 2,
        "tokens": 8,
        "trained_tokens": 3,
        "longest": 5,
        "median_tokens": 4.0,
        "truncated": 1,
    }


def test_a_tokenizer_without_eos_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_file=str(vocabulary / "tokenizer.json")).save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match="the tokenizer has no EOS token"):
        load_tokenizer(tmp_path / "manifest.json")


def test_the_stage_leaves_a_table_a_card_and_a_manifest(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizers/t-00000000/model")
    owner = tmp_path / "tokenizers/t-00000000/manifest.json"
    write_record(owner, {}, [owner.with_name("model")])
    sources = {"math": {"rows": 3, "available": 9, "dropped": {"empty": 2, "duplicate": 1}}}
    rows = as_rows(*TEXTS[:2], ("long " * 60, "lost"))
    facts: dict[str, Any] = {"asked": 5, "dropped": {"duplicate_between_parts": 4}, "sources": sources, "rows": 3}
    sample = stand_in(tmp_path, "samples/math-5-00000000", rows, "rows.parquet", **facts)
    inputs = {"tokenizer": str(owner.relative_to(tmp_path)), "sample": sample}
    identity = {"tokenizer": "0" * 8, "sample": "0" * 8, "max_length": 60}
    spec = content("tokens", "tokens/made-00000000/manifest.json", identity, inputs)
    do(spec, tmp_path)
    manifest = tmp_path / spec["output"]
    made = read_json(manifest)
    table = pl.read_parquet(manifest.with_name("tokens.parquet"))
    assert dict(table.schema) == tokenise.SCHEMA
    assert (made["rows"], made["eos"]) == (2, tokenizer.eos_token_id)
    assert made["tokens"] == table["input_ids"].list.len().sum()
    assert made["dropped"] == {"prompt_fills_max_length": 1, "holds_a_benchmark_item": 0}
    card = manifest.with_name("card.md").read_text()
    assert "# Data card of math-5-00000000" in card
    assert "- rows: 2 (asked for 5 of each dataset)" in card
    assert f"- tokens in one epoch: {made['tokens']}, of which {made['trained_tokens']} carry loss" in card
    assert "| math | 3 | 9 | duplicate 1, empty 2 |" in card
    assert "dropped as duplicates between datasets: 4 rows" in card


def test_rows_that_hold_an_item_are_left_out_if_the_study_says_so(vocabulary: Path, tmp_path: Path) -> None:
    shutil.copytree(vocabulary, tmp_path / "tokenizers/t-00000000/model")
    owner = tmp_path / "tokenizers/t-00000000/manifest.json"
    write_record(owner, {}, [owner.with_name("model")])
    # the same row number of another dataset is another row
    rows = pl.concat([as_rows(*TEXTS[:3]), as_rows(*TEXTS[:3]).with_columns(dataset=pl.lit("code"))])
    facts = {"asked": None, "dropped": {"duplicate_between_parts": 0}, "sources": {}}
    sample = stand_in(tmp_path, "samples/math-00000000", rows, "rows.parquet", **facts)
    held = pl.DataFrame({"row": ["rows.jsonl:2"] * 2, "dataset": ["code"] * 2, "benchmark": ["a", "b"]})
    held.write_parquet(tmp_path / "contamination.parquet")
    inputs = {"tokenizer": str(owner.relative_to(tmp_path)), "sample": sample, "contamination": "contamination.parquet"}
    identity = {"tokenizer": "0" * 8, "sample": "0" * 8, "max_length": 512}
    spec = content("tokens", "tokens/made-00000000/manifest.json", identity, inputs)
    do(spec, tmp_path)
    made = read_json(tmp_path / spec["output"])
    assert (made["rows"], made["dropped"]["holds_a_benchmark_item"]) == (5, 1)
    left = pl.read_parquet((tmp_path / spec["output"]).with_name("tokens.parquet"))["row"].to_list()
    assert left == [f"rows.jsonl:{number}" for number in (1, 2, 3, 1, 3)]


def test_evaluation_sees_the_token_ids_of_training(
    either: PreTrainedTokenizerBase, place_base: Callable[..., str], tmp_path: Path
) -> None:
    """The same instruction, through the sample and tokens of training and through the task and encoder of lm-eval."""
    rows = [(f"i:{n}", text, [answer, "no"], 0, None, answer, "") for n, (text, answer) in enumerate(TEXTS)]
    schema = ["item", "instruction", "choices", "gold", "answers", "example", "group"]
    items = pl.DataFrame(rows, schema=schema, orient="row")
    facts = {"kind": "multiple_choice", "scored": True, "pattern": None, "compare": "equal"}
    benchmark = stand_in(tmp_path, "benchmarks/b-00000000", items, "items.parquet", **facts)
    task = build_task(tmp_path / benchmark, "b", 0, Asked(items="b", shots=[0], stop=[], max_tokens=1), TEMPLATE)
    task.build_all_requests()
    model = load_model((tmp_path / place_base(tmp_path)).with_name("model"), "fp32", prepare(1))
    # a copy: what lm-eval sets in a tokenizer stays in it
    encoder = HFLM(pretrained=model, tokenizer=copy.deepcopy(either), batch_size=1, device="cpu")

    trained, _ = tokenise.tokenise(as_rows(*TEXTS), either, 512)
    for number, (ids, labels) in enumerate(trained.select("input_ids", "labels").iter_rows()):
        start = next(index for index, label in enumerate(labels) if label != IGNORED)
        (right, _) = (request.args for request in task.instances if request.doc_id == number)
        context, continuation = encoder._encode_pair(*right)
        assert context == ids[:start]
        assert [*continuation, either.eos_token_id] == ids[start:]
        # generation starts from the same ids
        generated_from, _ = encoder.tok_batch_encode([right[0]])
        assert generated_from[0].tolist() == ids[:start]
