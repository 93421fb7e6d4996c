"""A DeepSpeed configuration is checked before any job starts, and says nothing that a recipe decides."""

import json
from pathlib import Path
from typing import Any

import pytest

from sft_atlas.errors import StudyError
from sft_atlas.study.deepspeed import read_deepspeed

ZERO3 = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
GOOD: dict[str, dict[str, Any]] = {
    "the least": {"zero_optimization": {"stage": 0}},
    "as examples have it": {
        "bf16": {"enabled": "auto"},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        },
        "zero_optimization": ZERO3
        | {
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "offload_param": {"device": "nvme", "nvme_path": "/local"},
            "overlap_comm": True,
            "sub_group_size": 1e9,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": 500000000,
        },
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "steps_per_print": 2000,
    },
}
# mistake: the content, the key that the message names, and what else it says
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no stage": ({"zero_optimization": {}}, "zero_optimization.stage", "missing"),
    "no zero": ({}, "zero_optimization", "missing"),
    "stage 4": ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage", "less than or equal to 3; found 4"),
    "stage as text": ({"zero_optimization": {"stage": "2"}}, "zero_optimization.stage", "integer; found '2'"),
    "unknown key": (
        {"zero_optimisation": {"stage": 2}},
        "zero_optimisation",
        "did you mean 'zero_optimization'?",
    ),
    "unknown key of zero": (
        {"zero_optimization": {"stage": 2, "overlap_com": True}},
        "zero_optimization.overlap_com",
        "did you mean 'overlap_comm'?",
    ),
    "auto where nobody fills it in": (
        {"zero_optimization": {"stage": 2, "overlap_comm": "auto"}},
        "zero_optimization.overlap_comm",
        "boolean; found 'auto'",
    ),
    "half an element": (
        {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1.5}},
        "zero_optimization.reduce_bucket_size",
        "multiple of 1",
    ),
    "weights that cannot be read": ({"zero_optimization": {"stage": 3}}, "zero_optimization", "no weights are kept"),
    "weights offloaded at stage 2": (
        {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
        "zero_optimization",
        "`offload_param` needs `stage: 3`, found `stage: 2`",
    ),
    "disk without a folder": (
        {"zero_optimization": ZERO3 | {"offload_param": {"device": "nvme"}}},
        "zero_optimization.offload_param",
        "`nvme_path`",
    ),
    "batch": (
        {"zero_optimization": {"stage": 2}, "train_batch_size": 32},
        "train_batch_size",
        'recipes decide this (batch_size); found 32; drop the key, or write "auto"',
    ),
    "learning rate": (
        {"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "betas": [0.9, 1]}}},
        "optimizer",
        "recipes decide this (learning_rate and weight_decay)",
    ),
    "optimiser": (
        {"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lion"}},
        "optimizer",
        'found {"type": "Lion"}',
    ),
    "schedule": (
        {"zero_optimization": {"stage": 2}, "scheduler": {"type": "WarmupLR"}},
        "scheduler",
        "(schedule and warmup_steps)",
    ),
    "precision": (
        {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
        "bf16",
        'recipes decide this (precision); found {"enabled": true}; drop the key, or write {"enabled": "auto"}',
    ),
    "clipping": (
        {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0},
        "gradient_clipping",
        "max_gradient_norm",
    ),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "zero.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_what_leaves_the_recipes_alone_is_taken(content: dict[str, Any], tmp_path: Path) -> None:
    read = read_deepspeed(written(tmp_path, json.dumps(content)))
    assert read.zero_optimization.stage == content["zero_optimization"]["stage"]


@pytest.mark.parametrize(("content", "key", "says"), BAD.values(), ids=BAD)
def test_what_contradicts_is_refused_in_one_line(content: dict[str, Any], key: str, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(content))
    with pytest.raises(StudyError) as refusal:
        read_deepspeed(path)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"config.yaml: deepspeed: {path}: {key}: ")
    assert says in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object of settings, found list"),
        ('{"train_batch_size": NaN}', "NaN is no number"),
        ('{"dump_state": true, "dump_state": false}', "key 'dump_state' stands twice"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=says):
        read_deepspeed(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"zero\.json: cannot be read \(No such file or directory\)"):
        read_deepspeed(tmp_path / "zero.json")
