# How far training moved every tensor and layer of a run's checkpoints.
# Measuring goes before further training, so that few checkpoints wait on the disk.
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
