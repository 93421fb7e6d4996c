# Whether every declared cell has its results; fails if not.
COMPLETE = "{name}/complete.json"


rule check_complete:
    input:
        job_inputs(COMPLETE),
        code=code_behind("complete"),
    output:
        in_results(COMPLETE),
    log:
        "logs/analyse/{name}/complete.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(COMPLETE)
    resources:
        **needs(COMPLETE),
    params:
        identity=job_identity(COMPLETE),
        spec=job_param(COMPLETE),
    shell:
        JOB
