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
    threads: threads_of(PERPLEXITY)
    resources:
        **needs(PERPLEXITY),
    params:
        spec=job_param(PERPLEXITY),
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
    threads: threads_of(SIMILARITY)
    resources:
        **needs(SIMILARITY),
    params:
        spec=job_param(SIMILARITY),
    shell:
        JOB
