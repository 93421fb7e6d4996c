# Log-likelihoods of the same texts under every kept epoch of a run, or under a base; and intrinsic dimensions.
LIKELIHOODS = "{model}/likelihoods-{hash}.parquet"


rule measure_likelihoods:
    input:
        job_inputs(LIKELIHOODS),
    output:
        in_results(LIKELIHOODS),
    log:
        "logs/likelihoods/{model}/{hash}.log",
    wildcard_constraints:
        hash=unfinished("likelihoods"),
    priority: stages()["likelihoods"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(LIKELIHOODS)
    resources:
        **needs(LIKELIHOODS),
    params:
        spec=job_param(LIKELIHOODS),
    shell:
        JOB
