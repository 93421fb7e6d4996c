# A fixed subset of datasets, or a mixture.
SAMPLE = "samples/{name}-{hash}/manifest.json"


rule prepare_sample:
    input:
        job_inputs(SAMPLE),
    output:
        in_results(SAMPLE),
    log:
        "logs/prepare/sample/{name}-{hash}.log",
    priority: stages()["sample"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(SAMPLE)
    resources:
        **needs(SAMPLE),
    params:
        spec=job_param(SAMPLE),
    shell:
        JOB
