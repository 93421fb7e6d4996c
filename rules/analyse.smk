# From tables to findings.
ANALYSE = "{name}/analyse.json"


rule analyse_tables:
    input:
        job_inputs(ANALYSE),
        code=code_behind("analyse"),
    output:
        report(
            in_results(ANALYSE),
            caption="../workflow/report/tables.rst",
            category="findings",
            labels={"study": "{name}", "what": "tables written"},
        ),
    log:
        "logs/analyse/{name}/analyse.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(ANALYSE)
    resources:
        **needs(ANALYSE),
    params:
        identity=job_identity(ANALYSE),
        spec=job_param(ANALYSE),
    shell:
        JOB
