"""Tokens per second of fine-tuning: our recipe, TRL's defaults and a plain PyTorch loop, on the same data, in one run.

    python benchmarks/training.py                                      # a micro model, generated rows, CPU
    python benchmarks/training.py --rows FILE.jsonl --shape small      # rows of a file (Alpaca's columns)
    python benchmarks/training.py --shape qwen2.5-7b --rows FILE.jsonl # GPU: a 7B shape with random weights
    python benchmarks/training.py --shared                             # loading a base for every run, or once for many

Each way trains the same rows in the same number of optimiser steps, from the same weights, alternating, `--repeats`
times; what is printed is the median. Tokens are those of the rows, padding not counted; the clock starts after the
first step. TRL's defaults are those of SFTConfig with the recipe's learning rate, batch (8 rows and accumulation),
length and epochs: bf16 and gradient checkpointing on. The plain loop is what a tutorial has: shuffled batches of the
whole step's rows, padded, AdamW, no checkpointing. On a GPU the share of the peak is 6 N tokens / seconds / peak
(Chowdhery et al. 2022, arXiv 2204.02311, appendix B; for LoRA, which needs no gradients of the base's weights, 4 N).
Nothing is written but a temporary folder. The losses of the last quarter of the steps stand beside, to be equal within
noise.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from sft_atlas.data.formats import Options, normalise
from sft_atlas.data.prompt import completion, prompt
from sft_atlas.files import write_record, write_table
from sft_atlas.micro import questions
from sft_atlas.micro.byte_pairs import train_tokenizer
from sft_atlas.models import device
from sft_atlas.stages.tokens.run import tokenise
from sft_atlas.stages.train import recipe_identity
from sft_atlas.study.model import Recipe, Template
from sft_atlas.training.fit import load, log_of, make_trainer, micro_batches
from sft_atlas.training.run_settings import Settings
from sft_atlas.training.trainer import adapter_config

# width, layers, heads, key/value heads, feed-forward width, vocabulary, architecture (7B shapes: the models' cards)
SHAPES = {
    "micro": (64, 6, 4, 2, 192, 768, "llama"),
    "small": (384, 8, 6, 2, 1024, 4000, "llama"),
    "qwen2.5-7b": (3584, 28, 28, 4, 18944, 152064, "qwen2"),
    "llama-3-8b": (4096, 32, 32, 8, 14336, 128256, "llama"),
    "qwen2.5-1.5b": (1536, 28, 12, 2, 8960, 151936, "qwen2"),
}
# Dense bf16 operations a second without sparsity, from NVIDIA's data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
TEMPLATE = Template()
Measured = tuple[float, list[float]]


class Clock(TrainerCallback):
    """Times of the ends of steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class Bench:
    """One base, one table of rows and one recipe, in a temporary folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.gpu = torch.cuda.is_available()
        self.base, self.tokens = folder / "base/manifest.json", folder / "tokens/manifest.json"
        width, layers, heads, pairs, inner, vocabulary, architecture = SHAPES[options.shape]
        tokenizer_folder = folder / "tokenizer"
        with contextlib.redirect_stdout(io.StringIO()):
            train_tokenizer(tokenizer_folder, min(vocabulary, 4000), 6000, partial(prompt, TEMPLATE))
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        self.examples = list(self._examples())
        table = pl.DataFrame(
            [
                (str(n), prompt(TEMPLATE, *ask), completion(TEMPLATE, answer))
                for n, (*ask, answer) in enumerate(self.examples)
            ],
            schema={"row": pl.String, "prompt": pl.String, "completion": pl.String},
            orient="row",
        )
        self.text = table
        tokens, _ = tokenise(table, self.tokenizer, options.max_length)
        write_table(self.tokens.with_name("tokens.parquet"), tokens)
        write_record(self.tokens, {}, [self.tokens.with_name("tokens.parquet")], rows=tokens.height)
        self.rows = tokens
        config = AutoConfig.for_model(
            architecture,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=pairs,
            intermediate_size=inner,
            vocab_size=max(vocabulary, len(self.tokenizer)),
            max_position_embeddings=8192,
            tie_word_embeddings=width < 2000,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        torch.manual_seed(0)
        self.config = config
        with torch.device("cuda" if self.gpu else "cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        model.save_pretrained(self.base.with_name("model"))
        for file in tokenizer_folder.iterdir():
            (self.base.with_name("model") / file.name).write_bytes(file.read_bytes())
        write_record(self.base, {}, [])
        del model
        declared = Recipe(
            method=options.method,
            learning_rate=options.learning_rate,
            schedule="constant",
            batch_size=options.batch,
            epochs=options.epochs,
            max_length=options.max_length,
            precision="bf16" if self.gpu else "fp32",
        )
        recipe, threads = recipe_identity(declared), torch.get_num_threads()
        self.settings = Settings.model_validate(
            {"base": "measured", "tokens": "measured", "recipe": recipe, "seed": 0, "threads": threads}
        )
        self.recipe = self.settings.recipe
        self.steps = options.epochs * math.ceil(tokens.height / options.batch)

    def _examples(self) -> Any:
        """Instruction, input and answer of every row."""
        if self.options.rows is None:
            for example in questions.examples("general", self.options.count, 0):
                yield example.instruction, "", example.completion
            return
        options = Options({}, "first")
        with Path(self.options.rows).open() as file:
            for _, line in zip(range(self.options.count), file, strict=False):
                example = normalise("alpaca", json.loads(line), options)
                if example is not None:
                    yield example.instruction, example.extra, example.completion

    @property
    def device(self) -> str:
        """What trains."""
        return torch.cuda.get_device_name() if self.gpu else f"{torch.get_num_threads()} CPU threads"

    def model(self) -> Any:
        """The base's weights in fp32, on the device."""
        model = AutoModelForCausalLM.from_pretrained(self.base.with_name("model"), dtype=torch.float32)
        return model.cuda() if self.gpu else model

    def speed(self, seconds: float, steps: int) -> float:
        """Tokens of the rows, without padding, in a second, of steps that took so long."""
        tokens = int(self.rows["input_ids"].list.len().sum()) * self.options.epochs
        return tokens / self.steps * steps / seconds

    def ours(self) -> Measured:
        """What a run of a study does, without its files."""
        tokenizer, model, rows = load(self.settings, self.base, self.tokens)
        splits = micro_batches(rows, model, self.recipe, 1)
        trainer = make_trainer(
            self.settings, model, tokenizer, rows, self.options.epochs, self.folder / "states", splits
        )
        return self._timed(trainer, lambda: log_of(trainer)["loss"].to_list())

    def trl(self) -> Measured:
        """TRL as it is, with the recipe's numbers."""
        data = Dataset(self.text.select("prompt", "completion").to_arrow())
        settings = SFTConfig(
            output_dir=str(self.folder / "trl"),
            learning_rate=self.recipe.learning_rate,
            lr_scheduler_type="constant",
            num_train_epochs=self.options.epochs,
            gradient_accumulation_steps=max(1, self.options.batch // 8),
            max_length=self.options.max_length,
            save_strategy="no",
            logging_steps=1,
            use_cpu=not self.gpu,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=self.model(),
            args=settings,
            train_dataset=data,
            processing_class=self.tokenizer,
            peft_config=adapter_config(self.recipe.adapter),
        )
        return self._timed(trainer, lambda: [entry["loss"] for entry in trainer.state.log_history if "loss" in entry])

    def loop(self) -> Measured:
        """A plain loop over shuffled, padded batches."""
        from peft import get_peft_model

        model = self.model()
        lora = adapter_config(self.recipe.adapter)
        model = get_peft_model(model, lora) if lora else model
        model.train()
        rows = list(zip(self.rows["input_ids"].to_list(), self.rows["labels"].to_list(), strict=True))
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.recipe.learning_rate, weight_decay=0.0)
        pad, ends, losses = self.tokenizer.pad_token_id or 0, [], []
        for epoch in range(self.options.epochs):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch)).tolist()
            for start in range(0, len(order), self.options.batch):
                batch = [rows[row] for row in order[start : start + self.options.batch]]
                longest = max(len(ids) for ids, _ in batch)
                ids = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids, _ in batch])
                labels = torch.tensor([[*want, *[-100] * (longest - len(want))] for _, want in batch])
                mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
                if self.gpu:
                    ids, labels, mask = ids.cuda(), labels.cuda(), mask.cuda()
                with torch.autocast("cuda", torch.bfloat16, enabled=self.gpu):
                    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
                ends.append(time.perf_counter())
        return self.speed(ends[-1] - ends[0], len(ends) - 1), losses

    def _timed(self, trainer: Any, losses: Callable[[], list[float]]) -> Measured:
        clock = Clock()
        trainer.add_callback(clock)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        return self.speed(clock.ends[-1] - clock.ends[0], len(clock.ends) - 1), losses()


def compare(bench: Bench, repeats: int) -> None:
    """Measure the three ways in turn, and print a table."""
    ways: dict[str, Callable[[], Measured]] = {
        "this project": bench.ours,
        "TRL's defaults": bench.trl,
        "plain loop": bench.loop,
    }
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            try:
                found[name].append(way())
            except torch.OutOfMemoryError:
                print(f"{name}: out of memory", file=sys.stderr)
            if bench.gpu:
                torch.cuda.empty_cache()
    lengths = bench.rows["input_ids"].list.len()
    print(
        f"{bench.options.shape}: {bench.parameters / 1e6:,.1f} million weights, {bench.options.method}; "
        f"{bench.rows.height} rows of {lengths.min()} to {lengths.max()} tokens (median {lengths.median():g}), "
        f"{bench.steps} steps of {bench.options.batch} rows; {bench.device}"
    )
    speeds = {name: statistics.median(speed for speed, _ in runs) for name, runs in found.items() if runs}
    reference = speeds.get("TRL's defaults", math.nan)
    peak = next((flops for name, flops in PEAK.items() if bench.gpu and name in torch.cuda.get_device_name()), None)
    print(f"{'':16}{'tokens/s':>10}{'of TRL':>9}{'loss, last quarter':>20}" + ("   of peak" if peak else ""))
    for name, runs in found.items():
        if runs:
            speed = speeds[name]
            loss = statistics.mean(runs[-1][1][-max(1, len(runs[-1][1]) // 4) :])
            work = (6 if bench.options.method == "full" else 4) * bench.parameters * speed
            share = f"{work / peak:10.0%}" if peak else ""
            print(f"{name:16}{speed:10,.0f}{speed / reference:9.2f}{loss:20.4f}{share}")


def share(bench: Bench, runs: int, repeats: int) -> None:
    """Measure runs of one base as forks of a process that has imported everything, with and without its weights."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for once, seconds in list(found.items()) * repeats:
        # in a new process: this one has started threads, which its forks would wait for in vain
        with multiprocessing.get_context("spawn").Pool(1) as process:
            seconds.append(process.apply(runs_of_one_base, (bench.settings, bench.folder, runs, once)))
    each, shared = (statistics.median(seconds) for seconds in found.values())
    print(
        f"{bench.options.shape}: {bench.parameters / 1e6:,.1f} million weights; a run of {bench.steps} steps takes "
        f"{each:.2f} s if it loads its base and {shared:.2f} s if {runs} share it: {each / shared:.2f} times as fast"
    )


def runs_of_one_base(settings: Settings, folder: Path, runs: int, once: bool) -> float:
    """Seconds for a run, each a fork of this process."""
    base, tokens = folder / "base/manifest.json", folder / "tokens/manifest.json"
    torch.set_num_threads(1)
    started = time.perf_counter()
    for _ in range(runs):
        if once:
            device.load_for_children(base.with_name("model"))
        child = os.fork()
        if not child:
            with contextlib.redirect_stdout(io.StringIO()):
                tokenizer, model, rows = load(settings, base, tokens)
                make_trainer(settings, model, tokenizer, rows, 1, folder / "states", 1).train()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("a run failed")
    return (time.perf_counter() - started) / runs


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="micro")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--rows", help="a JSON Lines file with instruction, input and output")
    parser.add_argument("--count", type=int, default=1000, help="rows (default 1000)")
    parser.add_argument("--batch", type=int, default=32, help="rows in a step (default 32)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1, as in the micro study)")
    parser.add_argument("--shared", action="store_true", help="measure what it saves to load a base once for 8 runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        if options.shared:
            share(bench, 8, options.repeats)
        else:
            compare(bench, options.repeats)


if __name__ == "__main__":
    main()
