"""Pre-train a micro base model from scratch."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sft_atlas.micro.declared import MicroBase
from sft_atlas.micro.documents import documents

# Documents are sorted by length within pools of this many batches: less padding, while batches stay mixed.
_POOL = 6
# Families differ in normalisation, biases and activation. Mistral is Llama with a sliding window: without a
# window shorter than the documents both are the same network.
_FAMILY_OPTIONS: dict[str, dict[str, object]] = {
    "mistral": {"sliding_window": 16},
    # Without soft-capping every attention implementation computes the same function.
    "gemma2": {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 128},
}


def build_model(config: MicroBase, eos: int, pad: int) -> PreTrainedModel:
    """The untrained network of a base, with the weights that its seed gives."""
    head_size = config.hidden_size // config.heads
    options: dict[str, object] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": head_size,
        "max_position_embeddings": config.positions,
        "tie_word_embeddings": True,
        # The default of 0.02 suits widths in the thousands and makes narrow models learn slowly.
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }
    if config.architecture == "gemma2":
        options["query_pre_attn_scalar"] = head_size
    if config.architecture == "olmo2":
        del options["head_dim"]
    options |= _FAMILY_OPTIONS.get(config.architecture, {})
    torch.manual_seed(config.seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(config.architecture, **options), dtype=torch.float32)


def _batches(texts: list[list[int]], size: int, seed: int) -> Iterator[list[list[int]]]:
    rng = Random(f"batches {seed}")
    for start in range(0, len(texts), size * _POOL):
        pool = sorted(texts[start : start + size * _POOL], key=len)
        batches = [pool[i : i + size] for i in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


def _schedule(step: int, config: MicroBase) -> float:
    """Share of the peak learning rate: linear rise, constant, linear fall."""
    rise = (step + 1) / max(1.0, config.warmup * config.steps)
    fall = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, rise, fall)


def pretrain(
    config: MicroBase,
    tokenizer: Path,
    prompt: Callable[[str], str],
    out: Path,
    threads: int = 1,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train a base on one document per row, save model and tokenizer in ``out``, and return a record.

    With one thread the same config and tokenizer give the same bytes. Raises ValueError if the tokenizer does
    not have the vocabulary of the config.
    """
    torch.set_num_threads(threads)
    started = time.process_time()
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    if len(encoder) != config.vocab_size:
        raise ValueError(f"{tokenizer} has {len(encoder)} tokens, the base wants vocab_size {config.vocab_size}")
    eos, pad = encoder.eos_token_id, encoder.pad_token_id
    mixture = {str(domain): weight for domain, weight in config.mixture.items()}
    corpus = list(documents(mixture, config.steps * config.batch_size, config.seed, prompt))
    texts = [[*ids, eos] for ids in encoder(corpus, add_special_tokens=False).input_ids]

    model = build_model(config, eos, pad)
    model.train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95), fused=True
    )
    tokens, mean_loss = 0, 0.0
    for step, batch in enumerate(_batches(texts, config.batch_size, config.seed)):
        width = max(map(len, batch))
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch])
        # Padding is on the right, where causal attention cannot see it, so no attention mask is needed.
        targets = ids.masked_fill(ids == pad, -100)[:, 1:]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config)
        optimiser.step()
        optimiser.zero_grad()
        tokens += ids.numel()
        mean_loss = loss.item() if step == 0 else 0.97 * mean_loss + 0.03 * loss.item()
        if (step + 1) % 200 == 0 or step + 1 == config.steps:
            report(f"step {step + 1}/{config.steps}: loss {mean_loss:.3f}")

    model.eval()
    model.save_pretrained(out)
    encoder.save_pretrained(out)
    return {
        "steps": config.steps,
        "tokens": tokens,
        "loss": mean_loss,
        "parameters": model.num_parameters(),
        "cpu_seconds": time.process_time() - started,
    }
