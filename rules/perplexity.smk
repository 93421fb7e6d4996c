# Perplexity and length of every sample under a base.
PERPLEXITY = "bases/{name}/perplexity-{hash}.parquet"


rule measure_perplexity:
    input:
        job_inputs(PERPLEXITY),
    output:
        in_results(PERPLEXITY),
    log:
        "logs/perplexity/{name}/{hash}.log",
    priority: stages()["perplexity"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(PERPLEXITY)
    resources:
        **needs(PERPLEXITY),
    params:
        spec=job_param(PERPLEXITY),
    shell:
        JOB
