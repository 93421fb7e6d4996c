# Which scores look like mistakes.
AUDIT = "{name}/audit.json"


rule audit_scores:
    input:
        job_inputs(AUDIT),
        code=code_behind("audit"),
    output:
        report(
            in_results(AUDIT),
            caption="../workflow/report/audit.rst",
            category="audit",
            labels={"study": "{name}", "what": "tables written"},
        ),
    log:
        "logs/analyse/{name}/audit.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(AUDIT)
    resources:
        **needs(AUDIT),
    params:
        identity=job_identity(AUDIT),
        spec=job_param(AUDIT),
    shell:
        JOB
