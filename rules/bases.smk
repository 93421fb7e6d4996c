# Pre-trained models: fetched and pinned, linked from a local folder, or pre-trained from scratch (micro).
BASE = "bases/{name}-{hash}/manifest.json"
TOKENIZER = "tokenizers/{name}-{hash}/manifest.json"


rule make_tokenizer:
    input:
        job_inputs(TOKENIZER),
    output:
        in_results(TOKENIZER),
    log:
        "logs/bases/tokenizer/{name}-{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(TOKENIZER)
    resources:
        **needs(TOKENIZER),
    params:
        spec=job_param(TOKENIZER),
    shell:
        JOB


rule make_base:
    input:
        job_inputs(BASE),
    output:
        in_results(BASE),
    log:
        "logs/bases/{name}-{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(BASE)
    resources:
        **needs(BASE),
    params:
        spec=job_param(BASE),
    shell:
        JOB
