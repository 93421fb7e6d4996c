# One run of supervised fine-tuning; checkpoints lie beside the manifest, where Snakemake never deletes them.
TRAIN = "runs/{base}/{sample}/{recipe}/train-{hash}.json"


rule train_run:
    input:
        job_inputs(TRAIN),
    output:
        in_results(TRAIN),
    log:
        "logs/train/{base}/{sample}/{recipe}/{hash}.log",
    conda:
        ENVIRONMENT
    threads: threads_of(TRAIN)
    resources:
        **needs(TRAIN),
    params:
        spec=gpus_param(TRAIN),
    shell:
        JOB
