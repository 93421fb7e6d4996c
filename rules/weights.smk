# How far training moved every tensor and layer of a run's checkpoints.
WEIGHTS = "runs/{base}/{sample}/{recipe}/weights-{hash}.parquet"


rule measure_weights:
    input:
        job_inputs(WEIGHTS),
    output:
        in_results(WEIGHTS),
    log:
        "logs/weights/{base}/{sample}/{recipe}/{hash}.log",
    conda:
        ENVIRONMENT
    threads: STUDY.threads
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    params:
        spec=job_param(WEIGHTS),
    shell:
        JOB
