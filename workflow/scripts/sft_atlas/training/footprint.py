"""Bytes that training takes, as formulas, for the cost of a run and for what a job does when memory is short."""

OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2}


def state_bytes(parameters: float, trained: float, precision: str, optimizer: str = "adamw") -> float:
    """Weights, gradients and the optimiser's two moments of a model, of whose weights `trained` are trained.

    In fp32 4 bytes for a weight and its gradient (2 in pure bf16); AdamW holds two moments in the type of the weights,
    8-bit AdamW two bytes (Dettmers et al. 2022, arXiv 2110.02861).
    """
    width = 2 if precision == "pure_bf16" else 4
    moments = OPTIMIZER_BYTES[optimizer] * (width / 4 if optimizer == "adamw" else 1)
    return parameters * width + trained * (width + moments)


def activation_bytes(hidden: float, layers: float) -> float:
    """Bytes of a token's activations, layers being computed again: a bf16 vector a layer, and 40 h in one layer."""
    return float(hidden * (2 * layers + 40))
