# How far training moved every tensor and layer of a run's checkpoints.
WEIGHTS = "runs/{base}/{sample}/{recipe}/weights-{hash}.parquet"


rule measure_weights:
    input:
        job_inputs(WEIGHTS),
    output:
        in_results(WEIGHTS),
    log:
        "logs/weights/{base}/{sample}/{recipe}/{hash}.log",
    wildcard_constraints:
        hash=unfinished("weights"),
    priority: stages()["weights"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(WEIGHTS)
    resources:
        **needs(WEIGHTS),
    params:
        spec=job_param(WEIGHTS),
    shell:
        JOB
