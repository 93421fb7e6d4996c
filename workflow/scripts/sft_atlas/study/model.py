"""The typed model of a study file: every key a study may hold, its default and its meaning.

Only pydantic is imported here, so that reading a study stays cheap while a workflow is planned.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from sft_atlas.fields import (
    MAX_CHARACTERS,
    DataFile,
    Epoch,
    Epochs,
    HubId,
    ModelFolder,
    Revision,
    Seed,
    Seeds,
    Selector,
    Shots,
    Strict,
    Text,
    distinct,
    exactly_one,
)
from sft_atlas.micro.declared import MicroBase, MicroBenchmark, MicroDataset
from sft_atlas.study.analyses import AnalysisOptions, Selection
from sft_atlas.study.measures import Decontamination, Evaluation, Likelihoods, Similarity

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
DATASET_PLACEHOLDER = "{dataset}"


class Hub(Strict):
    """A repository on the Hugging Face hub, pinned."""

    HASHED = ("id", "revision", "files")

    id: HubId = Field(description="Repository id, `owner/name`.")
    revision: Revision = Field(description="Commit, tag or branch; a commit is the only one that cannot move.")
    files: list[str] = Field(
        default=[],
        description="File patterns to fetch (datasets; empty: every data file); `data.zip/a/*.csv` reads an archive.",
    )
    otherwise: "Hub | None" = Field(
        default=None, description="A second source of the same rows, read where the first one cannot be had."
    )


class Template(Strict):
    """The one prompt of the study, used in training, perplexity and evaluation alike."""

    HASHED = ("prompt", "input_separator", "completion_prefix")

    prompt: str = Field(
        default="###Question: {instruction}\n###Answer:",
        description="What stands before the completion; `{instruction}` is replaced by the example's text, `{input}`, "
        "where there is one, by its input. Control tokens written here are text to a tokenizer, as everywhere.",
    )
    input_separator: str = Field(
        default="\n",
        description="What joins an example's instruction and its input, if any, where the prompt has no `{input}`.",
    )
    completion_prefix: str = Field(
        default=" ",
        description="What the completion begins with; EOS ends it. An indented completion, such as code, begins on a "
        "line of its own, in place of spaces here.",
    )

    @model_validator(mode="after")
    def _holds_the_instruction(self) -> "Template":
        if self.prompt.count("{instruction}") != 1:
            raise ValueError("prompt must hold `{instruction}` exactly once")
        if (inputs := self.prompt.count("{input}")) > 1:
            raise ValueError(f"prompt may hold `{{input}}` once, found it {inputs} times")
        if inputs and "input_separator" in self.model_fields_set:
            raise ValueError("`input_separator` is without use where the prompt holds `{input}`; drop one of the two")
        return self


class Base(Strict):
    """A pre-trained model: exactly one of `hub`, `path` and `micro`."""

    LABELS = ("hub", "path", "micro", "family", "language", "parameters")

    hub: Hub | None = Field(default=None, description="A snapshot on the hub.")
    path: ModelFolder | None = Field(default=None, description="A local folder with config, tokenizer and safetensors.")
    micro: MicroBase | None = Field(default=None, description="Pre-trained from scratch by the workflow.")
    family: str | None = Field(default=None, description="Label: model family.")
    language: str | None = Field(default=None, description="Label: main language.")
    parameters: float | None = Field(
        default=None, gt=0, le=1e13, description="Number of weights, for the price before the base is fetched."
    )
    cast: Literal["bf16"] | None = Field(
        default=None,
        description="Cast the published weights to this type once, before anything is trained or measured; none: as "
        "published. A base published in fp32 needs it where checkpoints are saved in bf16: else its change of weights "
        "holds the rounding of its own weights, and those of other bases do not.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Base":
        exactly_one(self, "hub", "path", "micro")
        if self.hub and self.hub.files:
            raise ValueError("`files` of a hub source belong to datasets; of a model everything needed is fetched")
        if self.hub and self.hub.otherwise:
            raise ValueError("`otherwise` of a hub source belongs to datasets; two repositories hold two models")
        if self.micro and self.cast:
            raise ValueError(
                "`cast` is for published weights; a `micro` base is made in fp32, and trained in its recipe's"
            )
        return self


DatasetFormat = Literal["alpaca", "prompt_completion", "messages", "conversations", "flan", "openmath", "columns"]
Scalar = str | int | float | bool


class Dataset(Strict):
    """A source of examples: exactly one of `hub`, `path` and `micro`."""

    HASHED = ("format", "columns", "keep", "drop", "turns")
    LABELS = ("hub", "path", "micro", "expected_tokens")

    hub: Hub | None = Field(default=None, description="A data repository on the hub.")
    path: DataFile | None = Field(default=None, description="A local file: .jsonl, .json, .csv or .parquet.")
    micro: MicroDataset | None = Field(default=None, description="Generated by the workflow.")
    format: DatasetFormat = Field(
        default="prompt_completion",
        description=(
            "Layout of a row: alpaca (instruction, input, output), prompt_completion, messages (role/content), "
            "conversations (LIMA's list of texts), flan (inputs, targets), openmath (question, generated_solution; "
            "correct rows only), or columns (named by `columns`)."
        ),
    )
    columns: dict[Literal["instruction", "input", "completion"], str] = Field(
        default={}, description="For format `columns`: which column holds the instruction, the input, the completion."
    )
    keep: dict[str, list[Scalar]] = Field(
        default={}, description="Keep rows whose column holds one of these values; `*` in a text stands for anything."
    )
    drop: dict[str, list[Scalar]] = Field(
        default={}, description="Drop rows whose column holds one of these values; `*` in a text stands for anything."
    )
    max_characters: int = Field(
        default=MAX_CHARACTERS,
        ge=1,
        le=10**8,
        description="Longer rows (instruction, input and completion together) are dropped as `too_long`.",
    )
    expected_tokens: int | None = Field(
        default=None, ge=1, le=10**6, description="Tokens in a row, for the price until samples are tokenised."
    )
    turns: Literal["first", "single"] = Field(
        default="first",
        description="Dialogues: `first` keeps the first question and answer, `single` drops longer dialogues.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Dataset":
        exactly_one(self, "hub", "path", "micro")
        if self.format == "columns" and not {"instruction", "completion"} <= self.columns.keys():
            raise ValueError("format `columns` needs `columns: {instruction: …, completion: …}`")
        if self.format != "columns" and self.columns:
            raise ValueError(f"`columns` needs `format: columns`, found `format: {self.format}`")
        if self.micro and (self.columns or self.keep or self.drop or self.format != "prompt_completion"):
            raise ValueError("a `micro` dataset is generated: it takes no format, columns, keep or drop")
        if self.micro and self.max_characters != MAX_CHARACTERS:
            raise ValueError("a `micro` dataset is generated: it takes no max_characters")
        if self.turns == "single" and self.format not in ("messages", "conversations"):
            raise ValueError(f"`turns: single` needs the format of a dialogue, found `format: {self.format}`")
        return self


class Sample(Strict):
    """A fixed subset of datasets, or a mixture of other samples.

    A name that holds `{dataset}` declares one sample for each dataset (or, with `leave_out`, for each one left out).
    """

    HASHED = ("size", "seed")
    LABELS = ("datasets", "mix", "leave_out", "shortfall")

    datasets: Selector | None = Field(default=None, description="Datasets (names or patterns) to draw from.")
    size: int | None = Field(default=None, ge=1, le=10**9, description="Rows to draw of each dataset; none: all rows.")
    mix: Selector | None = Field(default=None, description="Samples (names or patterns) to put together.")
    leave_out: Selector | None = Field(default=None, description="With `mix`: datasets left out, one sample for each.")
    seed: Seed = Field(default=0, description="Seed of the draw.")
    shortfall: Literal["error", "take_all"] = Field(
        default="error",
        description="With fewer rows than `size` after filtering: stop, or take all there are. It decides about the "
        "job, not about the sample: no part of its identity.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Sample":
        exactly_one(self, "datasets", "mix")
        if self.mix and (drawn := self.model_fields_set & {"size", "seed", "shortfall"}):
            raise ValueError(f"`{min(drawn)}` belongs to a sample of `datasets`; a `mix` takes its samples whole")
        if self.leave_out and not self.mix:
            raise ValueError("`leave_out` needs `mix`")
        return self


class Lora(Strict):
    """Low-rank adapters (peft)."""

    HASHED = ("rank", "alpha", "dropout", "targets")

    rank: int = Field(default=8, ge=1, le=4096, description="Rank r.")
    alpha: int = Field(default=16, ge=1, description="Scale; the update is alpha / r · B·A.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="all-linear", description="Module names that get an adapter; all-linear is every one but the head."
    )


class Recipe(Strict):
    """Training settings."""

    HASHED = (
        "method",
        "learning_rate",
        "schedule",
        "warmup_steps",
        "batch_size",
        "epochs",
        "weight_decay",
        "max_gradient_norm",
        "max_length",
        "precision",
        "batching",
        "optimizer",
        "lora",
    )
    LABELS = ("keep",)

    method: Literal["full", "lora"] = Field(description="Train every weight, or low-rank adapters.")
    learning_rate: float = Field(gt=0, le=10, description="Peak learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="Learning rate over the run. Under `constant`, epoch k equals a run of k epochs."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps of linear warm-up.")
    batch_size: int = Field(default=32, ge=1, le=65536, description="Examples in one optimiser step.")
    epochs: Epoch = Field(default=10, description="Passes over the sample.")
    keep: Epochs | None = Field(default=None, description="Epochs kept as checkpoints; none: the last.")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="AdamW's decoupled weight decay.")
    max_gradient_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    max_length: int = Field(default=2048, ge=8, description="Tokens of prompt and completion; longer rows are cut.")
    precision: Literal["fp32", "bf16", "pure_bf16"] = Field(
        default="bf16",
        description="fp32; bf16: computes in bf16 with weights and optimiser in fp32; pure_bf16: all of it in bf16, "
        "which drops small updates.",
    )
    batching: Literal["shuffled", "by_length", "packed"] = Field(
        default="shuffled",
        description="Which rows make a step: drawn; of like length; or packed to max_length, batch_size packs a step.",
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="adamw", description="8-bit AdamW (GPU only) keeps two bytes a weight instead of eight."
    )
    lora: Lora | None = Field(default=None, description="Adapter settings (method lora only).")

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.method == "full" and self.lora is not None:
            raise ValueError("`lora` settings need `method: lora`, found `method: full`")
        check_epochs(self.keep, self.epochs, "keep")
        return self

    def passed_on(self) -> dict[str, Any]:
        """Settings that TRL takes as they are: fields whose metadata names its argument, where they are given.

        A new option of this kind is a field and nothing else (docs/extending.md):
        `json_schema_extra={"trl": "adam_beta2"}`.
        """
        arguments = {
            name: field.json_schema_extra["trl"]
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and "trl" in field.json_schema_extra
        }
        given = {str(argument): getattr(self, name) for name, argument in arguments.items()}
        return {argument: value for argument, value in given.items() if value is not None}

    @property
    def adapter(self) -> Lora | None:
        """The adapter's settings, or None for full fine-tuning."""
        return None if self.method == "full" else self.lora or Lora()


class Match(Strict):
    """Which cells are meant: those that agree with every key given."""

    base: Selector | None = None
    sample: Selector | None = None
    recipe: Selector | None = None
    seed: Seeds | None = None
    epoch: Epochs | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Match":
        if not any((self.base, self.sample, self.recipe, self.seed, self.epoch)):
            raise ValueError("at least one of base, sample, recipe, seed, epoch is needed")
        return self


class Missing(Match):
    """Cells that are known to fail, and why."""

    reason: Text


class Cells(Strict):
    """A product without exceptions of its own."""

    bases: Selector
    samples: Selector
    recipes: Selector
    seeds: Seeds | None = None
    epochs: Epochs | None = None


class Block(Strict):
    """One product of the matrix: bases × samples × recipes × seeds × kept epochs."""

    bases: Selector = Field(description="Names or patterns.")
    samples: Selector = Field(description="Names or patterns.")
    recipes: Selector = Field(description="Names or patterns.")
    seeds: Seeds | None = Field(default=None, description="None: the study's seeds.")
    epochs: Epochs | None = Field(default=None, description="Kept epochs; none: the recipe's.")
    exclude: list[Match] = Field(default=[], description="Cells of the product that are not part of the study.")
    include: list[Cells] = Field(default=[], description="Further products that belong to this block.")
    expected_missing: list[Missing] = Field(
        default=[], description="Cells known to fail: declared, not run, listed in the report with the reason."
    )


class Subset(Strict):
    """A named part of the study: every cell but those that match; for labels and for `only: subset=NAME`."""

    all_but: list[Match] = Field(min_length=1, description="Cells that are not part of it.")


BenchmarkFormat = Literal[
    "items",
    "gsm8k",
    "math",
    "mmlu",
    "cmmlu",
    "boolq",
    "hellaswag",
    "nq",
    "truthfulqa",
    "mbpp",
    "humaneval",
    "mt_bench",
    "alpaca_eval",
]


class Benchmark(Strict):
    """A benchmark: exactly one of `hub`, `path` and `micro`."""

    HASHED = ("shots", "max_tokens", "stop")
    """Of its scores; the items' identity has other fields (stages/benchmark)."""
    LABELS = (
        *("hub", "path", "micro", "format", "limit", "shots_path", "shots_hub", "expected_items", "expected_tokens"),
        *("chance", "matches", "translation_of"),
    )

    hub: Hub | None = Field(default=None, description="A data repository on the hub.")
    path: DataFile | None = Field(default=None, description="A local file of items: .jsonl, .json, .csv or .parquet.")
    micro: MicroBenchmark | None = Field(default=None, description="Generated by the workflow.")
    format: BenchmarkFormat = Field(
        default="items",
        description="Layout of an item: items (instruction, answer and, if it has them, choices), or that of a "
        "published benchmark: gsm8k, math, mmlu, cmmlu, boolq, hellaswag, nq, truthfulqa; or mbpp, humaneval, mt_bench "
        "or alpaca_eval, whose answers are generated and kept but not scored: they need a judge, or to be run.",
    )
    shots: Annotated[list[Shots], Field(min_length=1), AfterValidator(distinct)] = Field(
        default=[0], description="Numbers of worked examples before the question; one score for each."
    )
    shots_path: DataFile | None = Field(
        default=None, description="File the worked examples come from, in the same format."
    )
    shots_hub: Hub | None = Field(default=None, description="Hub files the worked examples come from instead.")
    own_example: Literal["exclude", "keep"] = Field(
        default="exclude",
        description="An item that is among its own worked examples: the next example is taken; or it stays, as in some "
        "published definitions, is flagged, and the score of the others stands beside the whole.",
    )
    limit: int | None = Field(default=None, ge=1, description="Use the first so many items; none: all.")
    max_tokens: int = Field(default=32, ge=1, le=32768, description="Generation stops after this many tokens.")
    stop: list[Text] = Field(default=["\n"], description="Generation stops at any of these texts.")
    expected_items: int | None = Field(
        default=None,
        ge=1,
        le=10**7,
        description="Number of items in the source, before `limit`: checked when the benchmark is prepared, and for "
        "the price until then.",
    )
    expected_tokens: int | None = Field(
        default=None, ge=1, le=10**6, description="Tokens of a question without worked examples, for the price."
    )
    chance: float | None = Field(default=None, ge=0, le=1, description="Label: score of guessing, for the report.")
    matches: list[str] = Field(default=[], description="Datasets that train what this benchmark tests (a label).")
    translation_of: str | None = Field(
        default=None, description="Label: the benchmark that this one is the counterpart of in another language."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Benchmark":
        exactly_one(self, "hub", "path", "micro")
        if self.micro and self.format != "items":
            raise ValueError("a `micro` benchmark is generated: it takes no format")
        if any(self.shots) and (self.shots_path is None) == (self.shots_hub is None):
            raise ValueError("`shots` above 0 need `shots_path` or `shots_hub`, where the worked examples come from")
        return self


class Study(Strict):
    """Everything scientific about a study, in one file.

    A file may begin with `extends: NAME`: sections that it does not have are those of that study in the same folder.
    """

    title: str = Field(default="", description="One line for the report.")
    template: Template = Field(default=Template(), description="The prompt.")
    threads: int = Field(
        default=1, ge=1, le=256, description="CPU threads of each numeric job; sums, and so last digits, depend on it."
    )
    bases: dict[str, Base] = Field(min_length=1, description="Pre-trained models by name.")
    datasets: dict[str, Dataset] = Field(min_length=1, description="Sources of examples by name.")
    samples: dict[str, Sample] = Field(min_length=1, description="Subsets and mixtures by name.")
    recipes: dict[str, Recipe] = Field(
        min_length=1,
        description="Training settings by name. A setting may list values if the name holds it: "
        '`"full-lr{learning_rate}": {learning_rate: [1e-6, 1e-5], …}` makes one recipe for each.',
    )
    allow_moving: bool = Field(
        default=False,
        description="Run although a hub revision is no commit (40 hex digits): the same study may then mean other data "
        "tomorrow. `sft-atlas pin` writes the commits instead.",
    )
    seeds: Seeds = Field(default=[0], description="Seeds of every run, unless a block says others.")
    blocks: dict[str, Block] = Field(min_length=1, description="The matrix, as named products.")
    subsets: dict[str, Subset] = Field(default={}, description="Named parts of the matrix.")
    benchmarks: dict[str, Benchmark] = Field(min_length=1, description="Benchmarks by name.")
    evaluation: Evaluation = Field(default=Evaluation(), description="How benchmarks are run.")
    keep_weights: Literal["all", "deltas", "adapters", "none"] = Field(
        default="all",
        description="Weights of a checkpoint once it is measured: all; deltas (lossless, against the base); adapters "
        "only; or none, just the measurements. They are made again if something needs them later: to the byte on a "
        "CPU, nearly so on GPUs, where `deltas` are exact.",
    )
    similarity: Similarity = Field(default=Similarity(), description="How samples and benchmarks are compared.")
    decontamination: Decontamination = Field(
        default=Decontamination(), description="Training rows that hold items of the benchmarks."
    )
    likelihoods: Likelihoods | None = Field(
        default=None,
        description="Log-likelihoods of texts under every model, for the map of models; none: no such map.",
    )
    accept: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={},
        description="Results of an earlier version of a stage that stay valid here, by stage: `{train: 2}`. What is "
        "not there yet is made under the present version.",
    )
    analyses: AnalysisOptions = Field(default=AnalysisOptions(), description="Options of the analyses.")
    selection: Selection | None = Field(
        default=None, description="A hyper-parameter search: rank all recipes and kept epochs by chosen benchmarks."
    )


def check_epochs(kept: list[int] | None, epochs: int, key: str) -> None:
    """Raise ValueError if a kept epoch lies beyond the run."""
    if kept is not None and max(kept) > epochs:
        raise ValueError(f"`{key}` names epoch {max(kept)}, but the run has {epochs}")
