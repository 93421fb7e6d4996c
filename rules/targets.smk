# Names to type: every stage, every base, every block, and the report of what there is.
STAGE_TARGETS = {
    "plan": [PRICED, PRICED.replace(".html", ".txt"), PRICED.replace(".html", ".parquet")],
    "prepare": PLAN.stage("dataset", "sample", "benchmark"),
    "bases": [spec.output for spec in PLAN.bases.values()],
    "tokenise": [spec.output for spec in PLAN.tokens.values()],
    "perplexity": [PLAN.perplexity[base].output for base in PLAN.bases],
    "similarity": [spec.output for spec in PLAN.similarity.values()],
    "contamination": [spec.output for spec in PLAN.contamination.values()],
    "train": [PLAN.train[key].output for key in PLAN.matrix.runs],
    "evaluate": [PLAN.scores[key].output for key in (*PLAN.bases, *PLAN.matrix.runs)],
    "weights": [PLAN.weights[key].output for key in PLAN.matrix.runs],
    "likelihoods": [
        PLAN.likelihoods[key].output for key in (*PLAN.bases, *PLAN.matrix.runs) if key in PLAN.likelihoods
    ],
    "embedding": [spec.output for spec in PLAN.embeddings.values()],
    "release": PLAN.released(),
    "audit": [STUDY_SPECS["audit"].output],
    "tables": [STUDY_SPECS["analyse"].output],
    # which data a new base should be tuned on: table recommend
    "recommend": [STUDY_SPECS["analyse"].output],
    "report_complete": [STUDY_SPECS["report"].output],
    "report_partial": [PARTIAL_SPECS["report"].output],
}

TARGETS = {
    **STAGE_TARGETS,
    **{f"base_{base}": PLAN.of_base(base) for base in PLAN.bases},
    **{f"block_{block}": PLAN.of_block(block) for block in STUDY.blocks},
}

for target, wanted in TARGETS.items():

    rule:
        name:
            target
        input:
            [in_results(path) for path in wanted],
        localrule: True
