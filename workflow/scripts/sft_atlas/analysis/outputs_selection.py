"""Schema of the table of a hyper-parameter search."""

from sft_atlas.analysis.columns import COUNT, FLAG, INTERVAL, REAL, TEXT, Column, Table

RECIPE = (
    Column("learning_rate", REAL, "", "peak learning rate"),
    Column("schedule", TEXT, "", "learning rate over the run"),
    Column("warmup_steps", COUNT, "steps", "steps of linear warm-up"),
    Column("batch_size", COUNT, "examples", "examples in one optimiser step"),
    Column("weight_decay", REAL, "", "AdamW's decoupled weight decay"),
    Column("max_gradient_norm", REAL, "", "gradients are clipped to this norm"),
    Column("max_length", COUNT, "tokens", "tokens of prompt and completion"),
    Column("precision", TEXT, "", "number formats of training, as the recipe says"),
    Column("optimizer", TEXT, "", "AdamW with moments in fp32 or in 8 bits"),
    Column("batching", TEXT, "", "which rows make a step: shuffled, by_length or packed"),
    Column("lora_rank", COUNT, "", "rank of the adapters; null for full", True),
    Column("lora_alpha", COUNT, "", "scale of the adapters; null for full", True),
)

SELECTION: dict[str, Table] = {
    "selection": Table(
        "one candidate of a hyper-parameter search: a recipe at one epoch; no rows unless the study has a `selection`",
        (
            Column("base", TEXT, "", "base model; null where the choice is over all bases", True),
            Column("sample", TEXT, "", "training sample; null where the choice is over all samples", True),
            Column("method", TEXT, "", "full or lora"),
            Column("recipe", TEXT, "", "training recipe"),
            Column("epoch", COUNT, "epochs", "epochs trained"),
            *RECIPE,
            Column("rank", COUNT, "", "1 is best, equal values share a rank; null where a judging score lacks", True),
            Column("tied", FLAG, "", "equal to the best within the study's `ties` standard errors"),
            Column("chosen", FLAG, "", "the one choice of its group: of the tied ones the most preferred"),
            Column("statistic", TEXT, "", "what ranks: mean_gain, worst_gain or mean_rank (least is best)"),
            Column("value", REAL, "fraction of the metric's range, or rank", "the statistic that ranks", True),
            Column("stderr", REAL, "as the value", "its standard error over items", True),
            *INTERVAL,
            Column("gain", REAL, "fraction of the metric's range", "mean gain over the judging benchmarks", True),
            Column("worst_gain", REAL, "fraction of the metric's range", "least gain of a judging benchmark", True),
            Column("judges", TEXT, "", "benchmarks that judged, joined by commas: those that have scores"),
            Column("n_benchmarks", COUNT, "benchmarks", "of these, how many scored this candidate"),
            Column("n_cells", COUNT, "cells", "base x sample x benchmark cells behind the mean"),
            Column("n_runs", COUNT, "runs", "training runs behind it"),
        ),
        ("base", "sample", "recipe", "epoch"),
    ),
}
