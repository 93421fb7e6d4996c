# Pre-trained models: fetched and pinned, linked from a local folder, or pre-trained from scratch (micro).
BASE = "bases/{name}-{hash}/manifest.json"
# Network is a matter of the login node; pre-training is not.
FETCHED = [spec.hash for spec in FULL_PLAN.select("base") if "micro" not in spec.identity["source"]]


rule fetch_base:
    input:
        job_inputs(BASE),
    output:
        in_results(BASE),
    log:
        "logs/bases/{name}-{hash}.log",
    wildcard_constraints:
        hash="|".join(FETCHED) or "none",
    priority: stages()["base"].priority
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(BASE)
    resources:
        **needs(BASE),
    params:
        spec=job_param(BASE),
    shell:
        JOB


rule make_base:
    input:
        job_inputs(BASE),
    output:
        in_results(BASE),
    log:
        "logs/bases/{name}-{hash}.log",
    wildcard_constraints:
        hash="(?!{})[0-9a-f]{{8}}".format("|".join(FETCHED) or "none"),
    priority: stages()["base"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(BASE)
    resources:
        **needs(BASE),
    params:
        spec=job_param(BASE),
    shell:
        JOB
