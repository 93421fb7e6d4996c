# Gives back the disk of measured checkpoints, if the study says so.
RELEASE = "runs/{base}/{sample}/{recipe}/release-{hash}.json"


rule release_weights:
    input:
        job_inputs(RELEASE),
    output:
        in_results(RELEASE),
    log:
        "logs/release/{base}/{sample}/{recipe}/{hash}.log",
    priority: stages()["release"].priority
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
