# Every benchmark on every kept epoch of a run, or on a base, in one process.
SCORES = "{model}/scores-{hash}.parquet"


rule evaluate_model:
    input:
        job_inputs(SCORES),
    output:
        in_results(SCORES),
    log:
        "logs/evaluate/{model}/{hash}.log",
    wildcard_constraints:
        hash=unfinished("evaluate"),
    priority: stages()["evaluate"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(SCORES)
    resources:
        **needs(SCORES),
    params:
        spec=job_param(SCORES),
    shell:
        JOB
