"""Wrong studies: each is refused before anything runs, in a line that says where, what was found and what to do."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from sft_atlas.errors import StudyError
from sft_atlas.micro.declared import Architecture, MicroBase
from sft_atlas.micro.pretrain import build_model
from sft_atlas.study.checks import check_places, known
from sft_atlas.study.load import MAX_BYTES, check_device, load_config, load_study, read_yaml, study_path
from sft_atlas.study.model import Base
from sft_atlas.study.table import plan_study
from tests.unit.helpers import STUDY, plan_of, write_study

MAIN = 'main: {bases: "*", samples: "*-40", recipes: full}'
MATH = "math: {micro: {topic: math, rows: 60}}"
FULL = "epochs: 4, keep: [1, 2, 4]}"
DECAY = "schedule: cosine, epochs: 4}"
DRAW = '"{dataset}-40": {datasets: "*", size: 40}'
ALL = 'all: {mix: "*-40"}'
LEFT_OUT = 'without-{dataset}: {mix: ["*-40"], leave_out: [math, chats]}'
EXCLUDED = "{sample: without-math, seed: [1]}"
INCLUDED = "{bases: calculator, samples: all, recipes: lora, seeds: [0]}"
MISSING = "{sample: all, seed: [1], reason: out of memory}"
HUB = "hub: {id: owner/model, revision: 0123abc}"
CHATS = "chats: {path: chats.jsonl, format: messages, turns: first, keep: {lang: [en]}}"
LORA = "lora: {rank: 4, targets: all-linear}"
SEEDS = STUDY[STUDY.index("seeds: [0, 1]\n") : STUDY.index("benchmarks:")]
READER = "micro: {architecture: qwen3, seed: 2, steps: 60, positions: 2048}"
FACTS = 'shots: [0, 2], shots_path: facts.jsonl, stop: ["\\n"], max_tokens: 8}'

# mistake: what is edited, into what, the key path that the message must name, and what else it must say
BAD: dict[str, tuple[str, str, str, list[str]]] = {
    # unknown keys
    "unknown section": ("seeds: [0, 1]\nblocks", "sedes: [0, 1]\nblocks", "sedes", ["unknown key", "'seeds'"]),
    "unknown key of a base": ("    family: llama", "    famly: llama", "bases.calculator.famly", ["'family'"]),
    "unknown key of a micro base": (READER, "micro: {sed: 2}", "bases.reader.micro.sed", ["did you mean 'seed'?"]),
    "unknown key of a recipe": (DECAY, "schedul: cosine}", "recipes.decay.schedul", ["did you mean 'schedule'?"]),
    "unknown key of an adapter": (LORA, "lora: {rnk: 4}", "recipes.lora.lora.rnk", ["did you mean 'rank'?"]),
    "unknown key of an exclusion": (EXCLUDED, "{smple: all}", "blocks.mixtures.exclude[0].smple", ["'sample'"]),
    "unknown key of an analysis": ("bootstrap_draws", "bootstrap_drawz", "analyses.bootstrap_drawz", ["_draws'?"]),
    "plural in a match": (EXCLUDED, "{samples: all}", "blocks.mixtures.exclude[0].samples", ["'sample'"]),
    "singular in a block": (MAIN, MAIN.replace("bases", "base"), "blocks.main.base", ["did you mean 'bases'?"]),
    "singular in a block, again": (
        MAIN,
        MAIN.replace("recipes: full", "recipe: full"),
        "blocks.main.recipe",
        ["'recipes'"],
    ),
    # entries that are called like a key
    "recipe that is called lora": (
        "lora: {method: lora, learning_rate",
        "lora: {method: lora, learnin_rate",
        "recipes.lora.learnin_rate",
        ["'learnin_rate'", "expected one of: batch_size", "did you mean 'learning_rate'?"],
    ),
    "block that is called seeds": (
        MAIN,
        'seeds: {base: "*", samples: "*-40", recipes: full}',
        "blocks.seeds.base",
        ["expected one of: bases", "did you mean 'bases'?"],
    ),
    "base that is called micro": (
        "  reader:\n    " + READER,
        "  micro:\n    micro: {sed: 2}",
        "bases.micro.micro.sed",
        ["expected one of: architecture", "did you mean 'seed'?"],
    ),
    "dataset that is called columns": (
        CHATS,
        CHATS.replace("chats: {path", "columns: {pth"),
        "datasets.columns.pth",
        ["'path'"],
    ),
    "list of numbers that is called recipes": (
        MAIN,
        MAIN.replace("main", "recipes").replace("bases", "bsaes"),
        "blocks.recipes.bsaes",
        ["'bases'"],
    ),
    # missing keys
    "section mistyped": ("\nbenchmarks:", "\nbenchmarkz:", "benchmarkz", ["did you mean 'benchmarks'?"]),
    "section left out": (SEEDS, "", "blocks", ["missing"]),
    "recipe without method": ("decay: {method: full, ", "decay: {", "recipes.decay.method", ["missing"]),
    "recipe without learning rate": ("learning_rate: 5e-3, ", "", "recipes.lora.learning_rate", ["missing"]),
    "block without bases": (MAIN, 'main: {samples: "*-40", recipes: full}', "blocks.main.bases", ["missing"]),
    "missing cell without reason": (
        ", reason: out of memory",
        "",
        "blocks.mixtures.expected_missing[0].reason",
        ["missing"],
    ),
    "hub without revision": (HUB, "hub: {id: owner/model}", "bases.fetched.hub.revision", ["missing"]),
    # unknown names
    "unknown benchmark of texts": (
        "evaluation: {",
        "likelihoods: {benchmarks: sum}\nevaluation: {",
        "likelihoods.benchmarks",
        ["'sum'", "'sums'?"],
    ),
    "unknown key of the texts": (
        "evaluation: {",
        "likelihoods: {text: 5}\nevaluation: {",
        "likelihoods.text",
        ["'texts'"],
    ),
    "unknown base": ("bases: reader", "bases: raeder", "blocks.mixtures.bases", ["'raeder'", "'reader'?"]),
    "unknown sample": (INCLUDED, INCLUDED.replace("all", "al"), "blocks.mixtures.include[0].samples", ["'all'?"]),
    "unknown recipe": ("recipes: [decay]", "recipes: [dekay]", "blocks.schedules.recipes", ["'decay'?"]),
    "unknown dataset": (DRAW, DRAW.replace('"*"', "mth"), "samples.{dataset}-40.datasets", ["'math'?"]),
    "unknown part": (ALL, "all: {mix: [math-41]}", "samples.all.mix", ["'math-41'", "'math-40'?"]),
    "unknown dataset left out": ("[math, chats]}", "[maths]}", "samples.without-{dataset}.leave_out", ["'math'?"]),
    "unknown match": ("matches: [math]", "matches: [maht]", "benchmarks.sums.matches[0]", ["'math'?"]),
    "unknown base excluded": (EXCLUDED, "{base: radar}", "blocks.mixtures.exclude[0].base", ["'reader'?"]),
    "pattern of nothing": (MAIN, MAIN.replace('"*-40"', '"*-50"'), "blocks.main.samples", ["'*-50'", "math-40"]),
    "unknown method": ("{method: lora", "{method: lor", "recipes.lora.method", ["'lor'", "did you mean 'lora'?"]),
    "unknown schedule": ("schedule: cosine", "schedule: cosin", "recipes.decay.schedule", ["'cosine'?"]),
    "unknown format": ("format: messages", "format: message", "datasets.chats.format", ["'messages'?"]),
    "unknown architecture": (
        "architecture: qwen3",
        "architecture: qwen",
        "bases.reader.micro.architecture",
        ["'qwen3'?"],
    ),
    "unknown topic": (MATH, "math: {micro: {topic: maths}}", "datasets.math.micro.topic", ["'math'?"]),
    "unknown domain": ("mixture: {math: 3", "mixture: {maths: 3", "bases.calculator.micro.mixture.maths", ["'math'?"]),
    # types
    "list for a section": (
        SEEDS,
        "blocks: []\n",
        "blocks",
        ["mapping", "list"],
    ),
    "text for a base": (HUB, "owner/model", "bases.fetched", ["mapping", "'owner/model'"]),
    "nothing for a recipe": ("{method: full, learning_rate: 1e-3, " + DECAY, "", "recipes.decay", ["mapping", "None"]),
    "text for a number": (
        "learning_rate: 5e-3",
        "learning_rate: 5e-3x",
        "recipes.lora.learning_rate",
        ["number", "5e-3x"],
    ),
    "number in quotes": ("size: 40", 'size: "40"', "samples.{dataset}-40.size", ["integer", "'40'"]),
    "number in quotes for a micro base": (
        "steps: 60, positions: 2048}\n    family",
        'steps: "60"}\n    family',
        "bases.calculator.micro.steps",
        ["integer"],
    ),
    "fraction for a count": ("size: 40", "size: 40.5", "samples.{dataset}-40.size", ["integer", "40.5"]),
    "truth for a count": ("size: 40", "size: true", "samples.{dataset}-40.size", ["integer", "True"]),
    "truth for a micro seed": ("seed: 2, steps", "seed: true, steps", "bases.reader.micro.seed", ["integer", "True"]),
    "one seed without brackets": ("seeds: [0, 1]\n", "seeds: 0\n", "seeds", ["list", "found 0"]),
    "one epoch without brackets": (FULL, "epochs: 4, keep: 4}", "recipes.full.keep", ["list", "found 4"]),
    "number for a title": ("a study that is right", "2024", "title", ["string", "2024"]),
    "number for a name": ("bases: reader", "bases: 3", "blocks.mixtures.bases", ["list", "found 3"]),
    "mapping for a method": ("{method: lora", "{method: {lora: 1}", "recipes.lora.method", ["'lora'", "mapping"]),
    "list for a size": ("size: 40", "size: [40, 50]", "samples.{dataset}-40.size", ["integer", "list"]),
    "text for adapters' targets": (
        "targets: all-linear",
        "targets: q_proj",
        "recipes.lora.lora.targets",
        ["list", "'q_proj'"],
    ),
    "nothing to keep": ("lang: [en]", "lang: [null]", "datasets.chats.keep.lang[0]", ["None"]),
    "one value to keep without brackets": ("lang: [en]", "lang: en", "datasets.chats.keep.lang", ["list", "'en'"]),
    # YAML
    "1e5 is no integer": ("size: 40", "size: 1e5", "samples.{dataset}-40.size", ["integer"]),
    "yes is text": (EXCLUDED, "{seed: yes}", "blocks.mixtures.exclude[0].seed", ["'yes'"]),
    "thousands with underscores": ("max_tokens: 8", "max_tokens: 1_000", "benchmarks.facts.max_tokens", ["'1_000'"]),
    "infinite learning rate": ("learning_rate: 5e-3", "learning_rate: 1e999", "recipes.lora.learning_rate", ["inf"]),
    "infinite gradient norm": (
        DECAY,
        "epochs: 4, max_gradient_norm: 1e999}",
        "recipes.decay.max_gradient_norm",
        ["inf"],
    ),
    "infinite mixture": ("{math: 3", "{math: 1e999", "bases.calculator.micro.mixture.math", ["inf"]),
    "not a number": ("learning_rate: 5e-3", "learning_rate: .nan", "recipes.lora.learning_rate", ["'.nan'"]),
    "key twice": ("family: llama", "family: llama\n    family: qwen", ", line 6", ["'family' stands twice"]),
    "section twice": (
        "seeds: [0, 1]\nblocks",
        "seeds: [0, 1]\nseeds: [2]\nblocks",
        ", line 23",
        ["'seeds' stands twice"],
    ),
    "alias of nothing": (READER, "micro: {seed: 2}\n    family: *a", ", line 8", ["undefined alias 'a'"]),
    "alias of the wrong kind": (READER, "micro: &a {seed: 2}\n    family: *a", "bases.reader.family", ["string"]),
    "alias inside itself": (READER, "micro: &a {seed: *a}", ", line 7", ["alias *a stands inside"]),
    "merge of a list of numbers": (READER, "<<: [1]", ", line 7", ["mapping"]),
    "merge that brings an unknown key": (READER, "<<: {famly: x}", "bases.reader.famly", ["'family'"]),
    "key twice beside a merge": (READER, f"<<: {{family: x}}\n    {READER}\n    {READER}", ", line 9", ["twice"]),
    "tag that runs code": ("title: a", "title: !!python/object/apply:os.mkdir [ran] #", ", line 1", ["tags"]),
    "tag with nonsense": ("title: a", "title: !!timestamp a", ", line 1", ["tags"]),
    "tag of a boolean": ("title: a", "title: !!bool a", ", line 1", ["tags"]),
    "list as key": ("title: a study", "? [a, b]\n: 1\ntitle: a", ", line 1", ["key must be plain text"]),
    "tab": ("  reader:\n", "\treader:\n", ", line 6", ["'\\t'"]),
    "unbalanced brackets": ("seeds: [0, 1]\nblocks", "seeds: [0, 1\nblocks", ", line 23", ["expected ',' or ']'"]),
    "missing colon": ("  reader:\n    " + READER, "  reader\n    " + READER, ", line 7", ["not valid YAML"]),
    "two documents": ("\nblocks:", "\n---\nblocks:", ", line 23", ["single document"]),
    "number with 5000 digits": ("seed: 2, steps", f"seed: {'9' * 5000}, steps", ", line 7", ["5000 digits"]),
    # absurd numbers
    "no rows": ("size: 40", "size: 0", "samples.{dataset}-40.size", ["greater than or equal to 1", "found 0"]),
    "too many rows": ("size: 40", "size: 40000000000", "samples.{dataset}-40.size", ["less than or equal"]),
    "too many micro rows": (
        MATH,
        "math: {micro: {topic: math, rows: 60000000000}}",
        "datasets.math.micro.rows",
        ["less than"],
    ),
    "too many layers": (READER, "micro: {layers: 100000000}", "bases.reader.micro.layers", ["less than"]),
    "too wide": (READER, "micro: {hidden_size: 80000000}", "bases.reader.micro.hidden_size", ["less than"]),
    "too many pre-training steps": (
        "seed: 2, steps: 60",
        "steps: 60000000000000",
        "bases.reader.micro.steps",
        ["less than"],
    ),
    "too many draws": (
        "bootstrap_draws: 200",
        "bootstrap_draws: 20000000000",
        "analyses.bootstrap_draws",
        ["less than"],
    ),
    "too many epochs": (DECAY, "epochs: 100000}", "recipes.decay.epochs", ["1000"]),
    "negative seed": ("seeds: [0, 1]\n", "seeds: [0, -1]\n", "seeds[1]", ["greater than or equal to 0", "-1"]),
    "huge seed": ("seeds: [0, 1]\n", "seeds: [99999999999999999999]\n", "seeds[0]", ["99999999999999999999"]),
    "learning rate of 100": ("learning_rate: 5e-3", "learning_rate: 100", "recipes.lora.learning_rate", ["100"]),
    "negative learning rate": ("learning_rate: 5e-3", "learning_rate: -5e-3", "recipes.lora.learning_rate", ["-0.005"]),
    "empty batch": (DECAY, "batch_size: 0}", "recipes.decay.batch_size", ["found 0"]),
    "sequences of 4 tokens": (DECAY, "max_length: 4}", "recipes.decay.max_length", ["found 4"]),
    "rank 0": ("rank: 4", "rank: 0", "recipes.lora.lora.rank", ["found 0"]),
    "epoch 0": (FULL, "epochs: 4, keep: [0]}", "recipes.full.keep[0]", ["found 0"]),
    "too many cells": (
        "seeds: [0, 1]\n",
        f"seeds: {list(range(40000))}\n",
        "blocks.main",
        ["1080000 cells", "at most 1000000"],
    ),
    # contradictions
    "two sources": (HUB, f"{HUB}\n    path: models/local", "bases.fetched", ["exactly one of", "hub and path"]),
    "no source": (HUB, "family: llama", "bases.fetched", ["exactly one of", "none of them"]),
    "size with mix": (ALL, 'all: {mix: "*-40", size: 10}', "samples.all", ["`size`"]),
    "seed with mix": (ALL, 'all: {mix: "*-40", seed: 3}', "samples.all", ["`seed`"]),
    "shortfall with mix": (ALL, 'all: {mix: "*-40", shortfall: take_all}', "samples.all", ["`shortfall`"]),
    "datasets with mix": (ALL, 'all: {mix: "*-40", datasets: math}', "samples.all", ["datasets and mix"]),
    "leave_out without mix": (
        ALL,
        "all: {datasets: math, leave_out: math}",
        "samples.all",
        ["`leave_out` needs `mix`"],
    ),
    "leave_out without placeholder": (LEFT_OUT, LEFT_OUT.replace("-{dataset}", ""), "samples.without", ["{dataset}"]),
    "placeholder without leave_out": (ALL, '"all-{dataset}": {mix: "*-40"}', "samples.all-{dataset}", ["`leave_out`"]),
    "leave_out of a dataset that is not in": (
        LEFT_OUT,
        "without-{dataset}: {mix: [math-40, chats-40], leave_out: knowledge}",
        "samples.without-{dataset}.leave_out",
        ["'knowledge'", "not in the mixture"],
    ),
    "leave_out of everything": (
        LEFT_OUT,
        "without-{dataset}: {mix: math-40, leave_out: math}",
        "samples.without-{dataset}.leave_out",
        ["'math'", "nothing is left"],
    ),
    "mixture of mixtures": (LEFT_OUT, "more: {mix: [all, math-40]}", "samples.more.mix", ["'all'", "mixture itself"]),
    "mixture of mixtures by pattern": (LEFT_OUT, 'more: {mix: "al*"}', "samples.more.mix", ["'al*'"]),
    "adapter of a full recipe": (DECAY, "lora: {rank: 4}}", "recipes.decay", ["`method: lora`"]),
    "keep beyond the run": (FULL, "epochs: 4, keep: [5]}", "recipes.full", ["epoch 5", "the run has 4"]),
    "keep twice": (FULL, "epochs: 4, keep: [4, 4]}", "recipes.full.keep", ["twice", "[4, 4]"]),
    "keep nothing": (FULL, "epochs: 4, keep: []}", "recipes.full.keep", ["at least one entry"]),
    "epochs beyond the run": ("epochs: [4]}", "epochs: [5]}", "blocks.schedules.epochs", ["epoch 5", "'decay' has 4"]),
    "columns without the format": (
        CHATS,
        "chats: {path: chats.jsonl, columns: {input: a}}",
        "datasets.chats",
        ["format"],
    ),
    "format columns without columns": (
        CHATS,
        "chats: {path: chats.jsonl, format: columns, columns: {input: a}}",
        "datasets.chats",
        ["completion"],
    ),
    "turns of a format without dialogues": (
        CHATS,
        "chats: {path: chats.jsonl, format: alpaca, turns: single}",
        "datasets.chats",
        ["`turns: single`", "alpaca"],
    ),
    "format of generated rows": (MATH, "math: {micro: {topic: math}, format: alpaca}", "datasets.math", ["generated"]),
    "format of generated items": (
        "{topic: math, items: 20},",
        "{topic: math, items: 20}, format: gsm8k,",
        "benchmarks.sums",
        ["generated"],
    ),
    "shots without examples": (FACTS, "shots: [5]}", "benchmarks.facts", ["`shots_path`"]),
    "shots twice": (FACTS, FACTS.replace("[0, 2]", "[2, 2]"), "benchmarks.facts.shots", ["twice"]),
    "empty stop text": (FACTS, FACTS.replace('"\\n"', '""'), "benchmarks.facts.stop[0]", ["at least 1 character"]),
    "template without instruction": (
        "seeds: [0, 1]\nb",
        'template: {prompt: "Q: A:"}\nb',
        "template",
        ["{instruction}"],
    ),
    "template with two instructions": (
        "seeds: [0, 1]\nb",
        'template: {prompt: "{instruction}{instruction}"}\nb',
        "template",
        ["exactly once"],
    ),
    "files of a model": (HUB, "hub: {id: a/b, revision: c, files: [x]}", "bases.fetched", ["`files`"]),
    "kind of file": ("path: chats.jsonl", "path: chats.txt", "datasets.chats.path", [".jsonl", "chats.txt"]),
    "kind of file of items": (
        "facts: {path: facts.jsonl",
        "facts: {path: facts.tsv",
        "benchmarks.facts.path",
        [".tsv"],
    ),
    # what can only fail later
    "more rows than are generated": (
        DRAW,
        DRAW.replace("40}", "61}"),
        "samples.{dataset}-40.size",
        ["found 61", "60 rows"],
    ),
    "warm-up beyond the run": (
        DECAY,
        "schedule: cosine, epochs: 4, warmup_steps: 9}",
        "recipes.decay.warmup_steps",
        ["found 9", "at most 8 steps", "40 rows in steps of 32, 4 epochs"],
    ),
    "warm-up beyond the last kept epoch of a constant run": (
        FULL,
        "epochs: 5, keep: [2], warmup_steps: 10}",
        "recipes.full.warmup_steps",
        ["at most 6 steps"],
    ),
    "warm-up beyond a mixture": (
        "epochs: 2, lora",
        "epochs: 2, warmup_steps: 7, lora",
        "recipes.lora.warmup_steps",
        ["'without-", "at most 6 steps", "80 rows"],
    ),
    "rank above the width": (LORA, "lora: {rank: 65}", "recipes.lora.lora.rank", ["found 65", "64 wide"]),
    "unknown module": (
        LORA,
        "lora: {targets: [q_proj, v_porj]}",
        "recipes.lora.lora.targets[1]",
        ["'v_porj'", "did you mean 'v_proj'?"],
    ),
    "unknown module, in full": (
        LORA,
        "lora: {targets: [layers.6.mlp.up_proj]}",
        "recipes.lora.lora.targets[0]",
        ["'layers.6.mlp.up_proj'", "up_proj"],
    ),
    "rows longer than the base": (
        DECAY,
        "epochs: 4, max_length: 4096}",
        "recipes.decay.max_length",
        ["found 4096", "2048 positions"],
    ),
    "neighbours beyond the texts": (
        "evaluation: {",
        "likelihoods: {texts: 10, neighbour: 10}\nevaluation: {",
        "likelihoods.neighbour",
        ["found 10", "22 texts at least", "at most 20"],
    ),
    "neighbours beyond the items": (
        "evaluation: {",
        "likelihoods: {benchmarks: sums, neighbour: 10}\nevaluation: {",
        "likelihoods.neighbour",
        ["at most 20 are drawn"],
    ),
    "answer as long as everything": (
        FACTS,
        FACTS.replace("max_tokens: 8", "max_tokens: 256"),
        "benchmarks.facts.max_tokens",
        ["found 256", "256 tokens together"],
    ),
    "parent folder as a subset": (
        "seeds: [0, 1]\nblocks",
        "seeds: [0, 1]\nsubsets: {../x: {all_but: [{seed: [1]}]}}\nblocks",
        "subsets",
        ["'../x'", "no valid name"],
    ),
    # duplicates and empty products
    "base twice": (
        READER,
        "micro: {mixture: {math: 3, web: 1}, seed: 1, steps: 60, positions: 2048}",
        "bases.reader",
        ["bases.calculator"],
    ),
    "recipe twice under another keep": (
        DECAY,
        "schedule: constant, batch_size: 16, epochs: 4, keep: [3]}",
        "recipes.decay",
        ["recipes.full"],
    ),
    "dataset twice": ("topic: knowledge, rows", "topic: math, rows", "datasets.knowledge", ["datasets.math"]),
    "sample twice": (
        ALL,
        f"{ALL}\n  again: {{datasets: math, size: 40}}",
        "samples.again",
        ["samples.math-40", "same"],
    ),
    "mixture twice": (ALL, f'{ALL}\n  again: {{mix: "*-40"}}', "samples.again", ["samples.all", "same"]),
    "sample named twice": (
        ALL,
        f"{ALL}\n  math-40: {{datasets: math, size: 41}}",
        "samples.math-40",
        ["second sample"],
    ),
    "base selected twice": (
        "[calculator]",
        "[calculator, calculator]",
        "blocks.schedules.bases",
        ["'calculator'", "twice"],
    ),
    "seed twice": ("seeds: [0, 1]\n", "seeds: [1, 1]\n", "seeds", ["twice"]),
    "cell included twice": (
        INCLUDED,
        "{bases: reader, samples: all, recipes: lora}",
        "blocks.mixtures.include[0]",
        ["already"],
    ),
    "exclusion of nothing": (EXCLUDED, "{seed: [7]}", "blocks.mixtures.exclude[0]", ["matches no cell"]),
    "exclusion that says nothing": (EXCLUDED, "{}", "blocks.mixtures.exclude[0]", ["at least one of"]),
    "missing cells that are none": (
        MISSING,
        "{seed: [7], reason: x}",
        "blocks.mixtures.expected_missing[0]",
        ["no cell"],
    ),
    "missing cells without a reason": (
        MISSING,
        '{seed: [1], reason: ""}',
        "blocks.mixtures.expected_missing[0].reason",
        ["at least 1"],
    ),
    "all excluded": ("epochs: [4]}", "exclude: [{base: calculator}]}", "blocks.schedules", ["empty"]),
    "no seeds": ("seeds: [0, 1]\n", "seeds: []\n", "seeds", ["at least one entry"]),
    "no bases in a block": ("bases: reader", "bases: []", "blocks.mixtures.bases", ["at least one entry"]),
    "no targets": ("targets: all-linear", "targets: []", "recipes.lora.lora.targets", ["at least one entry"]),
    "no items": ("items: 20", "items: 0", "benchmarks.sums.micro.items", ["greater than 0"]),
    "translation of nothing": (
        "matches: [math]}",
        "matches: [math], translation_of: fact}",
        "benchmarks.sums.translation_of",
        ["unknown benchmark 'fact'", "did you mean 'facts'?"],
    ),
    "translation of itself": (
        "matches: [math]}",
        "translation_of: sums}",
        "benchmarks.sums.translation_of",
        ["unknown benchmark 'sums'", "expected one of: facts"],
    ),
    # names and paths that could do harm
    "parent folder as a name": ("  fetched:", "  ../../fetched:", "bases", ["'../../fetched'", "no valid name"]),
    "path as a name": ("  fetched:", "  a/b:", "bases", ["'a/b'"]),
    "hidden name": ("  fetched:", "  .fetched:", "bases", ["'.fetched'"]),
    "shell in a base's name": ("  fetched:", '  "$(touch ran)":', "bases", ["'$(touch ran)'", "letters, digits"]),
    "shell in a dataset's name": ("  chats: {", '  "; touch ran": {', "datasets", ["'; touch ran'"]),
    "Jinja in a recipe's name": ("  decay:", '  "{{ 7 * 7 }}":', "recipes", ["'{{ 7 * 7 }}'"]),
    "markup in a block's name": ("  main:", '  "<script>":', "blocks", ["'<script>'"]),
    "wildcard in a benchmark's name": ("  sums:", '  "{hash}":', "benchmarks", ["'{hash}'"]),
    "line break in a name": ("  sums:", '  "a\\nb":', "benchmarks", [r"'a\nb'"]),
    "empty name": ("  sums:", '  "":', "benchmarks", ["''"]),
    "name of 65 letters": ("  sums:", f"  {'s' * 65}:", "benchmarks", ["at most 64"]),
    "shell in a sample's name": (ALL, '"a; touch ran": {mix: "*-40"}', "samples.a; touch ran", ["no valid name"]),
    "other placeholder in a sample's name": (DRAW, '"{base}-40": {datasets: "*"}', "samples.{base}-40", ["{dataset}"]),
    "hub id without owner": ("id: owner/model", "id: model", "bases.fetched.hub.id", ["owner/name", "'model'"]),
    "hub id that climbs": ("id: owner/model", "id: ../..", "bases.fetched.hub.id", ["owner/name", "'../..'"]),
    "revision that climbs": ("revision: 0123abc", "revision: ../../x", "bases.fetched.hub.revision", ["'../../x'"]),
    "revision with shell": ("revision: 0123abc", 'revision: "$(ls)"', "bases.fetched.hub.revision", ["'$(ls)'"]),
    "absent source": (
        "path: chats.jsonl",
        "path: none.jsonl",
        "datasets.chats.path",
        ["'none.jsonl'", "working folder"],
    ),
    "absent model": (HUB, "path: none", "bases.fetched.path", ["'none'", "working folder"]),
    "wildcard in a source": ("path: chats.jsonl", 'path: "{a}/b.jsonl"', "datasets.chats.path", ["no braces", "{a}"]),
    "wildcard in a model's folder": (HUB, 'path: "models/{a}"', "bases.fetched.path", ["no braces", "'models/{a}'"]),
    "source with a null byte": ("path: chats.jsonl", 'path: "a\\0.jsonl"', "datasets.chats.path", ["is not a file"]),
}


def refusal(path: Path) -> list[str]:
    """The lines that refuse a study, without the file's name, which each of them must begin with."""
    with pytest.raises(StudyError) as raised:
        plan_of(path)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines)
    return [line.removeprefix(str(path)).removeprefix(": ") for line in lines]


@pytest.mark.parametrize(("old", "new", "where", "said"), BAD.values(), ids=BAD)
def test_a_wrong_study_is_refused_in_one_line(
    old: str, new: str, where: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, (old, new))
    before = sorted(tmp_path.iterdir())
    lines = refusal(path)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{where}: ")
    assert all(fragment in lines[0] for fragment in said), lines[0]
    assert len(lines[0]) < 400
    assert sorted(tmp_path.iterdir()) == before, "reading a study left something behind"


def test_the_study_behind_all_of_these_is_right(tmp_path: Path) -> None:
    assert plan_of(write_study(tmp_path)).matrix.checkpoints == 60


def test_every_mistake_has_its_own_line(tmp_path: Path) -> None:
    edits = [("size: 40", "size: 0"), ("    family: llama", "    famly: llama"), ("rank: 4", "rank: x")]
    assert {line.partition(":")[0] for line in refusal(write_study(tmp_path, *edits))} == {
        "samples.{dataset}-40.size",
        "bases.calculator.famly",
        "recipes.lora.lora.rank",
    }


def laughs(depth: int, pair: str) -> bytes:
    """Some hundred bytes of YAML that stand for 2 ** depth entries."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {pair.format(f'*a{n - 1}')}" for n in range(1, depth))]
    return "\n".join(lines).encode()


UNREADABLE = {
    "missing": (None, "cannot be read (No such file or directory)"),
    "empty": (b"", "found None"),
    "only a comment": (b"# title: x\n", "found None"),
    "list": (b"- a\n- b\n", "a study is a mapping of keys; found ['a', 'b']"),
    "text": (b"micro", "found 'micro'"),
    "not UTF-8": ("title: Übung".encode("latin-1"), "not UTF-8 text (byte 7)"),
    "binary": (bytes(range(256)), "not UTF-8 text (byte 128)"),
    "control character": (b"title: \x01", "not valid YAML"),
    "nested too deeply": (b"title: " + b"[" * 100_000, "nested too deeply"),
    "too large": (b"#" * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes"),
    "laughs": (laughs(30, "[{0}, {0}]"), f"more than {MAX_BYTES} characters"),
    "laughs in mappings": (laughs(30, "{{x: {0}, y: {0}}}"), f"more than {MAX_BYTES} characters"),
    "laughs by merging": (laughs(30, "{{<<: [{0}, {0}]}}"), f"more than {MAX_BYTES} characters"),
    "one long text, often": (b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a, " * 100 + b"]\n", "written out"),
}


@pytest.mark.parametrize(("written", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_study_is_refused(written: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    if written is not None:
        path.write_bytes(written)
    lines = refusal(path)
    assert len(lines) == 1
    assert said in lines[0]


def test_anchors_aliases_and_merge_keys_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "common: &common {a: 1, b: &b [x, 2], name: &name 7}\n"
        "own: {<<: *common, a: 3}\n"
        "two: {<<: [{a: 5, c: 6}, *common]}\n"
        "deep: {<<: {<<: *common, b: 0}, a: 9}\n"
        "again: *b\n"
        "*name : *name\n"
        '"<<": text\n'
    )
    common = {"a": 1, "b": ["x", 2], "name": 7}
    assert read_yaml(path) == {
        "common": common,
        "own": common | {"a": 3},
        "two": common | {"a": 5, "c": 6},
        "deep": common | {"b": 0, "a": 9},
        "again": ["x", 2],
        "7": 7,
        "<<": "text",
    }


def test_a_study_with_anchors_has_the_identities_of_the_same_study_without(tmp_path: Path) -> None:
    plain = plan_of(write_study(tmp_path))
    edits = [
        ("micro: {architecture: llama, mixture:", "micro: {architecture: &a llama, mixture: &m"),
        (READER, READER.replace("60", "&n 60")),
        ("{topic: math, items: 20}", "{topic: math, items: 20}, expected_items: *n"),
        ("  math: {micro: {topic: math, rows: 60}}", "  math: {micro: &rows {topic: math, rows: 60}}"),
        ("  knowledge: {micro: {topic: knowledge, rows: 60}}", "  knowledge: {micro: {<<: *rows, topic: knowledge}}"),
    ]
    anchored = plan_of(write_study(tmp_path, *edits))
    assert {key: (spec.output, spec.hash) for key, spec in anchored.specs.items()} == {
        key: (spec.output, spec.hash) for key, spec in plain.specs.items()
    }


def test_a_table_beside_a_matrix_is_one_line(tmp_path: Path) -> None:
    path = write_study(tmp_path, ("title: a study that is right", "table: {path: scores.csv}"))
    with pytest.raises(StudyError) as raised:
        plan_study(path, tmp_path)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: table: ")
    assert "datasets, samples, recipes, blocks" in line and "drop `table`" in line


EXTENSIONS = {
    "mistyped": ({"study": "parnt"}, "unknown study 'parnt'; expected one of: parent; did you mean 'parent'?"),
    "a path": ({"study": "../study"}, "unknown study '../study'"),
    "a list": ({"study": "[parent]"}, "unknown study ['parent']"),
    "itself": ({"study": "study"}, "unknown study 'study'"),
    "in a circle": ({"study": "parent", "parent": "study"}, "not even by way of parent.yaml"),
}


@pytest.mark.parametrize(("extends", "said"), EXTENSIONS.values(), ids=EXTENSIONS)
def test_a_wrong_extension_is_refused(extends: dict[str, str], said: str, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    (tmp_path / "parent.yaml").write_text(path.read_text())
    for name, parent in extends.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"extends: {parent}\n{file.read_text()}")
    (line,) = refusal(path)
    assert line.startswith("extends: ")
    assert said in line


def test_a_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        read_yaml(tmp_path)


CONFIGS = {
    "unknown key": ({"resluts": "x"}, "resluts: unknown key 'resluts'", "did you mean 'results'?"),
    "no text": ({"study": 5}, "study: expected a valid string", "found 5"),
    "unknown device": ({"device": "gpu"}, "device: unknown value 'gpu'", "did you mean 'cpu'?"),
    "nothing in memory": ({"micro_batch_size": 0}, "micro_batch_size: ", "found 0"),
    "text for a truth": ({"share_imports": "perhaps"}, "share_imports: ", "found 'perhaps'"),
    "no folder": ({"results": ""}, "results: expected a folder", "found ''"),
    "shell in the folder": ({"results": "a; touch ran"}, "results: expected a folder", "found 'a; touch ran'"),
    "home of nobody": ({"results": "~nobody-here/x"}, "results: ~ stands for the home", "found '~nobody-here/x'"),
    "relative scratch": ({"scratch": "tmp"}, "scratch: expected an absolute path", "found 'tmp'"),
    "shell in the image": (
        {"container": "docker://x; touch y"},
        "container: expected a .sif file",
        "found 'docker://x; touch y'",
    ),
    "wildcard in the folder": ({"results": "{name}"}, "results: expected a folder", "found '{name}'"),
}


@pytest.mark.parametrize(("declared", "where", "said"), CONFIGS.values(), ids=CONFIGS)
def test_a_wrong_config_is_refused(declared: dict[str, object], where: str, said: str) -> None:
    with pytest.raises(StudyError) as raised:
        load_config(declared)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"config.yaml: {where}")
    assert line.endswith(said)


RIGHT = [
    {"scratch": "$TMPDIR"},
    {"scratch": "/local/$USER"},
    {"container": "a/b-1.sif"},
    {"container": "docker://quay.io/a/b:1.0@sha256:0f"},
]


@pytest.mark.parametrize("declared", RIGHT, ids=str)
def test_a_right_config_is_read(declared: dict[str, str]) -> None:
    ((key, value),) = declared.items()
    assert getattr(load_config(declared), key) == value


PLACES = {
    "the working folder": (".", "is that or lies in it"),
    "the project": ("../project", "is that or lies in it"),
    "everything": ("/", "is that or lies in it"),
    "the folder above": ("..", "is that or lies in it"),
    "the package": ("../project/workflow/scripts/sft_atlas", "workflow holds other things"),
    "the tests": ("../project/tests/results", "tests holds other things"),
    "by a link": ("linked", "studies holds other things"),
    "the logs": ("logs/results", "logs holds other things"),
}


@pytest.mark.parametrize(("results", "said"), PLACES.values(), ids=PLACES)
def test_results_among_the_projects_own_files_are_refused(
    results: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("project/tests", "project/studies", "here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/linked").symlink_to(tmp_path / "project/studies")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(StudyError, match=r"^config\.yaml: results: found .*; give a folder of its own") as raised:
        check_places(load_config({"results": results}), tmp_path / "project")
    assert said in str(raised.value) and "\n" not in str(raised.value)
    check_places(load_config({"results": "results"}), tmp_path / "project")
    check_places(load_config({"results": str(tmp_path / "project/results")}), tmp_path / "project")


def test_what_is_known_of_a_local_base_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    config = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512}
    (tmp_path / "local/config.json").write_text(json.dumps(config))
    edits = [(HUB, f"path: {tmp_path / 'local'}"), (LORA, "lora: {rank: 33, targets: [c_attn]}")]
    path = write_study(tmp_path, *edits, ("bases: reader", "bases: fetched"))
    lines = refusal(path)
    assert (
        "recipes.full.max_length: found 2048, but base 'fetched' has 512 positions; lower it to 512, or take another "
        "base"
    ) in lines
    keys = {"recipes.lora.max_length", "recipes.lora.lora.rank", "recipes.lora.lora.targets[0]"}
    assert {line.split(":")[0] for line in lines} == keys | {"recipes.full.max_length"}
    # of another kind of network the names are not known, nor of a broken file anything
    (tmp_path / "local/config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert [line for line in refusal(path) if "targets" in line and "'fetched'" in line] == []
    (tmp_path / "local/config.json").write_text("{")
    assert [line for line in refusal(path) if "'fetched'" in line] == []


@pytest.mark.parametrize("kind", get_args(Architecture))
def test_the_modules_of_an_architecture_are_those_of_transformers(kind: Any) -> None:
    micro = MicroBase(architecture=kind, layers=2)
    model = build_model(micro, 1, 2)
    kinds = torch.nn.Linear | torch.nn.Embedding
    found = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    assert set(known(Base(micro=micro)).modules or ()) == found


def test_a_recipe_that_the_device_cannot_train_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, ("lora: {method: lora,", "lora: {method: lora, optimizer: paged_adamw_8bit,"))
    study = load_study(path)
    check_device(load_config({"device": "auto"}), study, path)
    with pytest.raises(StudyError, match=r"recipes\.lora\.optimizer: found 'paged_adamw_8bit', .* use 'adamw'"):
        check_device(load_config({"device": "cpu"}), study, path)


STUDIES = {
    "mistyped": ("mirco", "did you mean 'micro'?"),
    "path without .yaml": ("studies/micro", "expected one of: micro"),
    "climbing": ("../studies/micro", "unknown study"),
    "no such file": ("none.yaml", "there is no file 'none.yaml'"),
    "a name that is no folder": ("a b;c.yaml", "'a b;c'"),
    "a folder of the results": ("runs.yaml", "'runs'"),
}


@pytest.mark.parametrize(("study", "said"), STUDIES.values(), ids=STUDIES)
def test_an_unknown_study_is_refused(study: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("studies/micro.yaml", "a b;c.yaml", "runs.yaml"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    with pytest.raises(StudyError) as raised:
        study_path(load_config({"study": study}), tmp_path)
    assert str(raised.value).startswith("config.yaml: study: ")
    assert said in str(raised.value)


ONLY = {
    "unknown base": (
        "base=raeder",
        "base: unknown base 'raeder'; expected one of: calculator, fetched, reader; did you",
    ),
    "unknown block": (
        "block=mixture",
        "block: unknown block 'mixture'; expected one of: main, mixtures, schedules; did",
    ),
    "unknown seed": ("seed=7", "seed: unknown seed '7'; expected one of: 0, 1"),
    "pattern of nothing": ("base=calculator,recipe=f*x", "recipe: unknown recipe 'f*x'; expected one of: decay, full"),
    "no subset": ("subset=half", "subset: unknown subset 'half'; expected one of: none declared"),
    "unknown key": ("bases=reader", "unknown key 'bases'; expected one of: base, block, recipe, sample, seed, subset"),
    "no key": (
        "reader",
        "found 'reader'; expected KEY=PATTERN, KEY one of base, sample, recipe, seed, block, subset, as",
    ),
    "nothing together": (
        "base=fetched,recipe=lora",
        "'base=fetched,recipe=lora' leaves no cell of the study: each part",
    ),
}


@pytest.mark.parametrize(("only", "said"), ONLY.values(), ids=ONLY)
def test_a_filter_that_leaves_nothing_names_what_there_is(only: str, said: str, tmp_path: Path) -> None:
    plan = plan_of(write_study(tmp_path))
    with pytest.raises(StudyError) as raised:
        plan.narrowed(only)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"config.yaml: only: {said}")


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_filter_leaves_everything(nothing: str | None, tmp_path: Path) -> None:
    plan = plan_of(write_study(tmp_path))
    assert plan.narrowed(load_config({"only": nothing}).only) is plan


def test_known_studies_are_found(tmp_path: Path) -> None:
    path = tmp_path / "studies/micro.yaml"
    path.parent.mkdir()
    path.touch()
    assert study_path(load_config({"study": "micro"}), tmp_path) == path
    assert study_path(load_config({"study": str(path)}), tmp_path / "elsewhere") == path
