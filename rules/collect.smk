# From results to tables, or from a table of scores. Here, and from here on, a change of code redoes work.
COLLECT = "{name}/collect.json"


rule collect_results:
    input:
        job_inputs(COLLECT),
        code=code_behind(STUDY_SPECS["collect"].stage),
    output:
        in_results(COLLECT),
    log:
        "logs/analyse/{name}/collect.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(COLLECT)
    resources:
        **needs(COLLECT),
    params:
        identity=job_identity(COLLECT),
        spec=job_param(COLLECT),
    shell:
        JOB
