"""Stage *bases*: every pre-trained model becomes a folder `model/` with safetensors, config and tokenizer.

A hub snapshot or a local folder is linked, file by file, and hashed; a micro base is pre-trained here from scratch.
"""

from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from sft_atlas.data.sources import DataError
from sft_atlas.files import content_hash, whole, write_record
from sft_atlas.prompt import prompt

TOKENIZER_DOCUMENTS = 6000
# some hub repositories hold the same weights a second time, in another layout
CONSOLIDATED = "consolidated*"


def run(spec: dict[str, Any], root: Path) -> None:
    """Make the `model/` folder of a base (stage base) or of the micro tokenizer (stage tokenizer), and its manifest.

    Raises:
        DataError: a source folder lacks what a model needs, or holds no safetensors.
    """
    output = root / spec["output"]
    folder = output.with_name("model")
    made_from: dict[str, Any] = {"spec": spec["hash"]}
    facts: dict[str, Any] = {}
    identity = spec["identity"]
    with whole(folder) as temporary:
        temporary.mkdir()
        if spec["stage"] == "tokenizer":
            _train_tokenizer(identity, temporary)
        elif "micro" in identity["source"]:
            tokenizer = root / spec["inputs"]["tokenizer"]
            made_from["tokenizer"] = content_hash(tokenizer)
            facts = _pretrain(identity, tokenizer, temporary)
        else:
            _link(_source_folder(identity["source"], spec["sources"]), temporary)
    write_record(output, made_from, [folder], **facts)


def _train_tokenizer(identity: dict[str, Any], folder: Path) -> None:
    from sft_atlas.micro.tokenizer import train_tokenizer

    train_tokenizer(folder, identity["vocab_size"], TOKENIZER_DOCUMENTS, partial(prompt, identity["template"]))


def _pretrain(identity: dict[str, Any], tokenizer: Path, folder: Path) -> dict[str, Any]:
    from sft_atlas.micro.config import MicroBase
    from sft_atlas.micro.pretrain import pretrain

    config = MicroBase.model_validate(identity["source"]["micro"])
    template, threads = identity["template"], identity["threads"]
    record = pretrain(config, tokenizer.with_name("model"), partial(prompt, template), folder, threads)
    return {key: record[key] for key in ("steps", "tokens", "loss", "parameters")}


def _source_folder(source: dict[str, Any], files: list[str]) -> Path:
    if "hub" in source:
        from sft_atlas.hub import fetch

        return fetch(source["hub"]["id"], source["hub"]["revision"], "model")
    return Path(files[0]).parent


def _link(source: Path, folder: Path) -> None:
    """Link the files of a model into the results, so that 15 GB are not copied; unsafe formats are left behind."""
    names = [file.name for file in source.iterdir() if file.is_file() and not fnmatchcase(file.name, CONSOLIDATED)]
    if "config.json" not in names:
        raise DataError(f"{source}: there is no config.json; expected the folder of a transformers model")
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
        found = f"only {', '.join(pickles)}, which could run code when read" if pickles else "no weights"
        raise DataError(f"{source}: no .safetensors file ({found}); save the model again as safetensors")
    for name in names:
        if name.endswith((".safetensors", ".json", ".txt", ".model", ".jinja")):
            (folder / name).symlink_to((source / name).resolve())
