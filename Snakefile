# The contents page: which study, which stages turn files into files, and which targets there are.
import os

from snakemake.utils import min_version

min_version("9.27")


# that of the working folder (--directory), else the project's own
configfile: "config.yaml" if os.path.exists("config.yaml") else os.path.join(workflow.basedir, "config.yaml")


include: "rules/common.smk"
include: "rules/progress.smk"


if CONFIG.container:

    container: CONFIG.container


wildcard_constraints:
    name=r"[A-Za-z0-9][A-Za-z0-9._+-]*",
    base=r"[A-Za-z0-9][A-Za-z0-9._+-]*",
    sample=r"[A-Za-z0-9][A-Za-z0-9._+-]*",
    recipe=r"[A-Za-z0-9][A-Za-z0-9._+-]*",
    source=r"(samples|benchmarks)/[^/]+",
    model=r"(bases|runs/[^/]+/[^/]+)/[^/]+",
    hash=r"[0-9a-f]{8}",
    id=r"[0-9a-f]{8}",


rule all:
    default_target: True
    input:
        in_results(STUDY_SPECS["report"].output),
        [in_results(path) for path in PLAN.released()],


include: "rules/dataset.smk"
include: "rules/sample.smk"
include: "rules/benchmark.smk"
include: "rules/tokenizer.smk"
include: "rules/base.smk"
include: "rules/tokens.smk"
include: "rules/perplexity.smk"
include: "rules/similarity.smk"
include: "rules/embedding.smk"
include: "rules/contamination.smk"
include: "rules/compared.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/likelihoods.smk"
include: "rules/weights.smk"
include: "rules/release.smk"
include: "rules/restore.smk"
include: "rules/collect.smk"
include: "rules/audit.smk"
include: "rules/analyse.smk"
include: "rules/report.smk"
include: "rules/complete.smk"
include: "rules/estimate.smk"
include: "rules/targets.smk"
include: "rules/requests.smk"
