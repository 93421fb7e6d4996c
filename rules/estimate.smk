# What the study will cost, before anything is spent: a page, a text and a table of every job.
ESTIMATE = "{name}/plan.html"


rule estimate_cost:
    input:
        job_inputs(ESTIMATE),
        code=code_behind("estimate"),
    output:
        page=in_results(ESTIMATE),
        text=in_results("{name}/plan.txt"),
        table=in_results("{name}/plan.parquet"),
    log:
        "logs/estimate/{name}.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(ESTIMATE)
    resources:
        **needs(ESTIMATE),
    params:
        identity=job_identity(ESTIMATE),
        spec=job_param(ESTIMATE),
    shell:
        JOB
