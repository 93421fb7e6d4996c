# From results to findings: tables, their audit and analysis, and the report. Here, and only here, a change of code redoes work.
COLLECT, AUDIT = "{name}/collect.json", "{name}/audit.json"
ANALYSE, REPORT = "{name}/analyse.json", "{name}/report.html"
AUDIT_CODE = ("audit*", "cells", "columns", "inputs", "outputs", "statistics", "tables")


rule collect:
    input:
        job_inputs(COLLECT),
        code=code_of(
            "workflow/scripts/sft_atlas/stages/collect/run.py", "workflow/scripts/sft_atlas/stages/import_scores/*.py", "workflow/scripts/sft_atlas/analysis/tables.py"
        ),
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


rule audit_scores:
    input:
        job_inputs(AUDIT),
        code=code_of(*(f"workflow/scripts/sft_atlas/analysis/{part}.py" for part in AUDIT_CODE)),
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


rule analyse:
    input:
        job_inputs(ANALYSE),
        code=code_of("workflow/scripts/sft_atlas/analysis/*.py", "workflow/scripts/sft_atlas/stages/analyse/*.py"),
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


rule report:
    input:
        job_inputs(REPORT),
        code=code_of("workflow/scripts/sft_atlas/report/*.py", "workflow/scripts/sft_atlas/report/templates/*"),
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
