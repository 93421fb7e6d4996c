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
    threads: STUDY.threads
    resources:
        gpu=gpus,
        mem_mb=16000,
        runtime=24 * 60,
    params:
        spec=job_param(TRAIN),
    shell:
        JOB
