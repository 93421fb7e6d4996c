# The page.
REPORT = "{name}/report.html"


rule write_report:
    input:
        job_inputs(REPORT),
        code=code_behind("report"),
    output:
        report(
            in_results(REPORT),
            caption="../workflow/report/page.rst",
            category="findings",
            labels={"study": "{name}", "what": "report"},
        ),
    log:
        "logs/analyse/{name}/report.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(REPORT)
    resources:
        **needs(REPORT),
    params:
        identity=job_identity(REPORT),
        spec=job_param(REPORT),
    shell:
        JOB
