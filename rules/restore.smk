# Puts back released weights that a new measurement needs, once for all that need them.
RESTORE = "runs/{base}/{sample}/{recipe}/restore-{hash}.json"


rule restore_weights:
    input:
        job_inputs(RESTORE),
    output:
        in_results(RESTORE),
    log:
        "logs/restore/{base}/{sample}/{recipe}/{hash}.log",
    priority: stages()["restore"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(RESTORE)
    resources:
        **needs(RESTORE),
    params:
        spec=gpus_param(RESTORE),
    shell:
        JOB
