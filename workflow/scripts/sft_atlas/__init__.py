"""SFT Atlas: the stages of the study as plain Python; nothing here knows Snakemake."""
