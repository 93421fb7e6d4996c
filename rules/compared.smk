# Nothing is trained on a sample before it was compared with every benchmark.
COMPARED = "samples/{name}-{id}/compared.json"


rule note_comparison:
    input:
        job_inputs(COMPARED),
    output:
        in_results(COMPARED),
    log:
        "logs/contamination/{name}-{id}/compared.log",
    priority: stages()["compared"].priority
    localrule: True
    conda:
        ENVIRONMENT
    threads: threads_of(COMPARED)
    resources:
        **needs(COMPARED),
    params:
        spec=job_param(COMPARED),
    shell:
        JOB
