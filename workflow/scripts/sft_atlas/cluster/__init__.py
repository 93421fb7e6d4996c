"""Running on SLURM: what Snakemake's executor leaves open, the state of a study, and what its jobs used."""
