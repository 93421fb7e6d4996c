# One run of supervised fine-tuning; checkpoints lie beside the manifest, where Snakemake never deletes them.
TRAIN = "runs/{base}/{sample}/{recipe}/train-{hash}.json"


def train_param(wildcards, output, resources):
    """The specification of the run; a run that one GPU cannot hold is told how many it has."""
    spec = job_param(TRAIN)(wildcards, output)
    return f"{spec} --gpus {resources.gpu}" if str(resources.gpu).isdigit() and int(resources.gpu) > 1 else spec


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
        spec=train_param,
    shell:
        JOB
