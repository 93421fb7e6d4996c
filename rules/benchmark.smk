# A benchmark becomes items of one schema.
BENCHMARK = "benchmarks/{name}-{hash}/manifest.json"


rule prepare_benchmark:
    input:
        job_inputs(BENCHMARK),
    output:
        in_results(BENCHMARK),
    log:
        "logs/prepare/benchmark/{name}-{hash}.log",
    priority: stages()["benchmark"].priority
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(BENCHMARK)
    resources:
        **needs(BENCHMARK),
    params:
        spec=job_param(BENCHMARK),
    shell:
        JOB
