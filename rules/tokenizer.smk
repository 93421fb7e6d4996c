# The tokenizer that micro bases share.
TOKENIZER = "tokenizers/{name}-{hash}/manifest.json"


rule make_tokenizer:
    input:
        job_inputs(TOKENIZER),
    output:
        in_results(TOKENIZER),
    log:
        "logs/bases/tokenizer/{name}-{hash}.log",
    priority: stages()["tokenizer"].priority
    conda:
        ENVIRONMENT
    threads: threads_of(TOKENIZER)
    resources:
        **needs(TOKENIZER),
    params:
        spec=job_param(TOKENIZER),
    shell:
        JOB
