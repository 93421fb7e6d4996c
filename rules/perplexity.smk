# The three predictors of the study: perplexity and length under the base, and similarity to the benchmarks, by wording
# and, where the study has a model for it, by meaning; beside them, which rows of a sample hold a benchmark's items.
PERPLEXITY = "bases/{name}/perplexity-{hash}.parquet"
SIMILARITY = "samples/{name}/similarity-{hash}.parquet"
EMBEDDING = "{source}/embedding-{hash}.parquet"
CONTAMINATION = "samples/{name}/contamination-{hash}.parquet"


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


rule embed_texts:
    input:
        job_inputs(EMBEDDING),
    output:
        in_results(EMBEDDING),
    log:
        "logs/embedding/{source}/{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(EMBEDDING)
    resources:
        **needs(EMBEDDING),
    params:
        spec=job_param(EMBEDDING),
    shell:
        JOB


rule measure_contamination:
    input:
        job_inputs(CONTAMINATION),
    output:
        in_results(CONTAMINATION),
    log:
        "logs/contamination/{name}/{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(CONTAMINATION)
    resources:
        **needs(CONTAMINATION),
    params:
        spec=job_param(CONTAMINATION),
    shell:
        JOB
