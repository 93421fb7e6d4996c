# The three predictors of the study: perplexity and length under the base, and similarity to the benchmarks.
PERPLEXITY = "bases/{name}/perplexity-{hash}.parquet"
SIMILARITY = "samples/{name}/similarity-{hash}.parquet"


rule measure_perplexity:
    input:
        job_inputs(PERPLEXITY),
    output:
        in_results(PERPLEXITY),
    log:
        "logs/perplexity/{name}/{hash}.log",
    conda:
        ENVIRONMENT
    threads: STUDY.threads
    params:
        spec=job_param(PERPLEXITY),
    resources:
        gpu=gpus,
        mem_mb=16000,
        runtime=12 * 60,
    shell:
        JOB


rule measure_similarity:
    input:
        job_inputs(SIMILARITY),
    output:
        in_results(SIMILARITY),
    log:
        "logs/similarity/{name}/{hash}.log",
    conda:
        ENVIRONMENT
    params:
        spec=job_param(SIMILARITY),
    resources:
        mem_mb=8000,
        runtime=60,
    shell:
        JOB
