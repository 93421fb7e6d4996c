# How far training moved every tensor and layer of a run's checkpoints.
WEIGHTS = "runs/{base}/{sample}/{recipe}/weights-{hash}.parquet"


rule measure_weights:
    input:
        job_inputs(WEIGHTS),
    output:
        in_results(WEIGHTS),
    log:
        "logs/weights/{base}/{sample}/{recipe}/{hash}.log",
    # before the next run is trained: a run's weights can go once they are read
    priority: 1
    conda:
        ENVIRONMENT
    threads: threads_of(WEIGHTS)
    resources:
        **needs(WEIGHTS),
    params:
        spec=job_param(WEIGHTS),
    shell:
        JOB
