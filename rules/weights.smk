# How far training moved every tensor and layer of a run's checkpoints; then their disk is given back, if the study says.
# Measuring goes before further training, so that few checkpoints wait on the disk.
WEIGHTS = "runs/{base}/{sample}/{recipe}/weights-{hash}.parquet"
RELEASE = "runs/{base}/{sample}/{recipe}/release-{hash}.json"


rule measure_weights:
    input:
        job_inputs(WEIGHTS),
    output:
        in_results(WEIGHTS),
    log:
        "logs/weights/{base}/{sample}/{recipe}/{hash}.log",
    priority: 30
    conda:
        ENVIRONMENT
    threads: threads_of(WEIGHTS)
    resources:
        **needs(WEIGHTS),
    params:
        spec=job_param(WEIGHTS),
    shell:
        JOB


rule release_weights:
    input:
        job_inputs(RELEASE),
    output:
        in_results(RELEASE),
    log:
        "logs/release/{base}/{sample}/{recipe}/{hash}.log",
    priority: 50
    # encoding reads and writes whole models; deleting does not
    localrule: STUDY.keep_weights != "deltas"
    conda:
        ENVIRONMENT
    threads: threads_of(RELEASE)
    resources:
        **needs(RELEASE),
    params:
        spec=job_param(RELEASE),
    shell:
        JOB
