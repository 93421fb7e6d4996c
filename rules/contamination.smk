# Which rows of a sample hold a benchmark's items.
CONTAMINATION = "samples/{name}/contamination-{hash}.parquet"


rule measure_contamination:
    input:
        job_inputs(CONTAMINATION),
    output:
        in_results(CONTAMINATION),
    log:
        "logs/contamination/{name}/{hash}.log",
    priority: stages()["contamination"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(CONTAMINATION)
    resources:
        **needs(CONTAMINATION),
    params:
        spec=job_param(CONTAMINATION),
    shell:
        JOB
