# Sources become normalised rows, samples of them, and benchmark items.
DATASET = "datasets/{name}-{hash}/manifest.json"
SAMPLE = "samples/{name}-{hash}/manifest.json"
BENCHMARK = "benchmarks/{name}-{hash}/manifest.json"


rule prepare_dataset:
    input:
        job_inputs(DATASET),
    output:
        in_results(DATASET),
    log:
        "logs/prepare/dataset/{name}-{hash}.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(DATASET)
    resources:
        **needs(DATASET),
    params:
        spec=job_param(DATASET),
    shell:
        JOB


rule prepare_sample:
    input:
        job_inputs(SAMPLE),
    output:
        in_results(SAMPLE),
    log:
        "logs/prepare/sample/{name}-{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(SAMPLE)
    resources:
        **needs(SAMPLE),
    params:
        spec=job_param(SAMPLE),
    shell:
        JOB


rule prepare_benchmark:
    input:
        job_inputs(BENCHMARK),
    output:
        in_results(BENCHMARK),
    log:
        "logs/prepare/benchmark/{name}-{hash}.log",
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
