# Similarity of meaning, where the study has a model for it.
EMBEDDING = "{source}/embedding-{hash}.parquet"


rule embed_texts:
    input:
        job_inputs(EMBEDDING),
    output:
        in_results(EMBEDDING),
    log:
        "logs/embedding/{source}/{hash}.log",
    priority: stages()["embedding"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(EMBEDDING)
    resources:
        **needs(EMBEDDING),
    params:
        spec=job_param(EMBEDDING),
    shell:
        JOB
