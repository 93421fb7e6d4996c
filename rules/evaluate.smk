# Every benchmark on every kept epoch of a run, or on a base, in one process.
SCORES = "{model}/scores-{hash}.parquet"


rule evaluate_model:
    input:
        job_inputs(SCORES),
    output:
        in_results(SCORES),
    log:
        "logs/evaluate/{model}/{hash}.log",
    priority: 20
    conda:
        ENVIRONMENT
    threads: STUDY.threads
    resources:
        gpu=gpus,
        mem_mb=16000,
        runtime=24 * 60,
    params:
        spec=job_param(SCORES),
    shell:
        JOB
