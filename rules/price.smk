# What the study will cost, before anything is spent: a page, a text and a table of every job.
PRICE = "{name}/plan.html"


rule price:
    input:
        job_inputs(PRICE),
        code=code_of("workflow/scripts/sft_atlas/stages/estimate/*"),
    output:
        page=in_results(PRICE),
        text=in_results("{name}/plan.txt"),
        table=in_results("{name}/plan.parquet"),
    log:
        "logs/price/{name}.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(PRICE)
    resources:
        **needs(PRICE),
    params:
        identity=job_identity(PRICE),
        spec=job_param(PRICE),
    shell:
        JOB
