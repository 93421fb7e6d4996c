"""The model of config.yaml."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sft_atlas.fields import Folder, matching

# both are shell text in the end
Image = Annotated[
    str, matching(r"([a-z]+://)?[\w./:@+~-]*", "a .sif file or the address of an image, without spaces or quotes")
]
# `--config only=` is nothing, which Snakemake reads as null
Only = Annotated[str, BeforeValidator(lambda value: "" if value is None else value, json_schema_input_type=str)]
NodeFolder = Annotated[str, matching(r"[/$][^\n]*", "an absolute path; it may begin with a variable, as $TMPDIR does")]


class Config(BaseModel):
    """config.yaml: which study, where files live, and hardware; nothing scientific."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str = Field(default="micro", description="A name in studies/, or the path of a YAML file.")
    results: Folder = Field(
        default="results", description="Folder of all results; put it on a fast shared file system."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where models run.")
    micro_batch_size: int | None = Field(
        default=None, ge=1, description="Examples in memory at once while training; none: what the memory holds."
    )
    save_minutes: float = Field(
        default=30, ge=0, description="Minutes between two saves of a run's resumable state; 0: after every step."
    )
    keep_state: bool = Field(
        default=False, description="Keep the state of finished runs, for longer constant schedules to go on from."
    )
    deepspeed: str | None = Field(
        default=None,
        description="A DeepSpeed configuration (JSON) for training on several GPUs, checked before any job starts; "
        "needs the extra: pip install '.[deepspeed]'.",
    )
    gpus: int = Field(default=8, ge=1, le=100_000, description="GPUs at a time, for the wall time in the plan.")
    gpu_memory_gb: float = Field(
        default=141, gt=0, le=10_000, description="Memory of one GPU; a run that needs more gets several."
    )
    container: Image = Field(
        default="", description="Image for `--sdm apptainer`: a .sif file, or docker://…; see envs/sft-atlas.def."
    )
    scratch: NodeFolder | None = Field(
        default=None,
        description="A compute node's own disk for temporary files and caches: an absolute path, whose variables are "
        "the node's.",
    )
    local_models: bool = Field(
        default=False, description="With `scratch`: copy a base there once per node, for jobs to load it from."
    )
    max_runtime: int | None = Field(
        default=None,
        ge=30,
        le=1_000_000,
        description="Minutes of the longest job that the cluster grants; longer ones go on in their next attempt.",
    )
    check_disk: bool = Field(default=True, description="Refuse to start a run that writes more than the disk holds.")
    max_files: int | None = Field(
        default=None, ge=1, description="Refuse to start a run that leaves more files than this below `results`."
    )
    only: Only = Field(default="", description="Narrows a run: `base=a,block=b` (patterns allowed).")
    share_imports: bool = Field(
        default=True, description="Local runs: jobs are forked from one process that has imported the libraries."
    )
