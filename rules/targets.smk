# Names to type: every stage, every base, every block, and the report of what there is.
STAGE_TARGETS = {
    "plan": [PRICED, PRICED.replace(".html", ".txt"), PRICED.replace(".html", ".parquet")],
    **stage_targets(),
    **{name: [spec.output] for name, spec in STUDY_SPECS.items() if name != "complete"},
    "tables": [STUDY_SPECS["analyse"].output],
    # which data a new base should be tuned on: table recommend
    "recommend": [STUDY_SPECS["analyse"].output],
    "report_complete": [STUDY_SPECS["report"].output, STUDY_SPECS["complete"].output],
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
