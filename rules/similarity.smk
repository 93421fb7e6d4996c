# How much of a benchmark's wording a sample shares.
SIMILARITY = "samples/{name}/similarity-{hash}.parquet"


rule measure_similarity:
    input:
        job_inputs(SIMILARITY),
    output:
        in_results(SIMILARITY),
    log:
        "logs/similarity/{name}/{hash}.log",
    priority: stages()["similarity"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(SIMILARITY)
    resources:
        **needs(SIMILARITY),
    params:
        spec=job_param(SIMILARITY),
    shell:
        JOB
