# Token ids and labels of every sample under every tokenizer, with the audit of the label mask.
TOKENS = "tokens/{base}/{name}-{hash}/manifest.json"


rule tokenise_sample:
    input:
        job_inputs(TOKENS),
    output:
        in_results(TOKENS),
    log:
        "logs/tokenise/{base}/{name}-{hash}.log",
    priority: stages()["tokens"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(TOKENS)
    resources:
        **needs(TOKENS),
    params:
        spec=job_param(TOKENS),
    shell:
        JOB
