# From results to findings: tables, their analysis, and the report. Here, and only here, a change of code redoes work.
STUDY_FOLDER = "{name}{part}/"
COLLECT, ANALYSE, REPORT = STUDY_FOLDER + "collect.json", STUDY_FOLDER + "analyse.json", STUDY_FOLDER + "report.html"


def code_of(*places):
    """Source files as inputs: compared by content, so that a checkout redoes nothing."""
    return [str(path) for place in places for path in sorted(ROOT.glob(place)) if path.is_file()]


rule collect:
    input:
        job_inputs(COLLECT),
        code=code_of("workflow/scripts/collect.py", "workflow/scripts/analyse/tables.py"),
    output:
        in_results(COLLECT),
    log:
        "logs/analyse/{name}{part}/collect.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        identity=job_identity(COLLECT),
        spec=job_param(COLLECT),
    shell:
        JOB


rule analyse:
    input:
        job_inputs(ANALYSE),
        code=code_of("workflow/scripts/analyse/*.py"),
    output:
        in_results(ANALYSE),
    log:
        "logs/analyse/{name}{part}/analyse.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        identity=job_identity(ANALYSE),
        spec=job_param(ANALYSE),
    shell:
        JOB


rule report:
    input:
        job_inputs(REPORT),
        code=code_of("workflow/scripts/report/*.py", "workflow/report/*"),
    output:
        in_results(REPORT),
    log:
        "logs/analyse/{name}{part}/report.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        identity=job_identity(REPORT),
        spec=job_param(REPORT),
    shell:
        JOB
