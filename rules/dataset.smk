# A source becomes normalised rows.
DATASET = "datasets/{name}-{hash}/manifest.json"


rule prepare_dataset:
    input:
        job_inputs(DATASET),
    output:
        in_results(DATASET),
    log:
        "logs/prepare/dataset/{name}-{hash}.log",
    priority: stages()["dataset"].priority
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
