"""Stage *bases*: every pre-trained model becomes a folder `model/` with safetensors, config and tokenizer.

A hub snapshot or a local folder is linked, file by file, and hashed; a micro base is pre-trained here from scratch.
Its tokenizer is converted once and compared with the raw file (tokenizers.py); weights are cast once if the
study says so, and pickles become safetensors, so that every job that follows reads one kind of folder.
"""

import errno
import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from sft_atlas.data.kinds import CONSOLIDATED, VOCABULARIES
from sft_atlas.data.prompt import prompt
from sft_atlas.errors import DataError
from sft_atlas.files import content_hash, read_json, whole, write_json, write_record
from sft_atlas.models.origin import record_origin
from sft_atlas.stages.base.spec import Identity, Source, Spec

LINKED = (".safetensors", ".json", ".txt", ".model", ".jinja")
# what a converted tokenizer stands in for: some reader might prefer one of these to it
REPLACED = ("tokenizer*", "*.model", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja")


def run(spec: Spec, root: Path) -> None:
    """Make the `model/` folder of a base, and its manifest.

    Raises:
        DataError: a source folder lacks what a model needs, or a file of it is broken or of no known model.
    """
    output = root / spec.output
    folder = output.with_name("model")
    made_from: dict[str, Any] = {"spec": spec.hash}
    facts: dict[str, Any] = {}
    with whole(folder) as temporary:
        temporary.mkdir()
        if spec.inputs.tokenizer:
            tokenizer = root / spec.inputs.tokenizer
            made_from["tokenizer"] = content_hash(tokenizer)
            facts = _pretrain(spec.identity, tokenizer, temporary)
        else:
            source = _source_folder(spec.identity.source, spec.sources, root)
            facts = _link(source, temporary, spec.identity.cast)
            record_origin(output, spec.identity.source.hub, source)
    write_record(output, made_from, [folder], **facts)


def _pretrain(identity: Identity, tokenizer: Path, folder: Path) -> dict[str, Any]:
    from sft_atlas.micro.pretrain import pretrain

    assert identity.source.micro and identity.template
    ask = partial(prompt, identity.template)
    record = pretrain(identity.source.micro, tokenizer.with_name("model"), ask, folder, identity.threads)
    return {key: record[key] for key in ("steps", "tokens", "loss", "parameters")}


def _source_folder(source: Source, files: list[str], root: Path) -> Path:
    if source.hub:
        from sft_atlas.data.hub import fetch

        return fetch(source.hub.id, source.hub.revision, "model", results=root)
    return Path(files[0]).parent


def _link(source: Path, folder: Path, cast: str | None) -> dict[str, Any]:
    """Link the files of a model into the results, so that 15 GB are not copied; unsafe formats are left behind.

    What is made anew are the tokenizer, weights in pickles, and weights that the study wants in another type.
    """
    from sft_atlas.stages.base.tokenizers import check_ends, convert

    names = [file.name for file in source.iterdir() if file.is_file() and not fnmatchcase(file.name, CONSOLIDATED)]
    _check(source, names)
    tokenizer = convert(source, folder)
    replaced = REPLACED if tokenizer else ()
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    facts: dict[str, Any] = {"tokenizer": tokenizer} if tokenizer else {}
    if cast or not weights:
        weights = weights or sorted(name for name in names if fnmatchcase(name, "pytorch_model*.bin"))
        if not weights:
            raise DataError(f"{source}: holds no weights; expected .safetensors files")
        facts["cast"] = _rewrite([source / name for name in weights], folder, cast)
        replaced = (*replaced, "*.safetensors", "*.safetensors.index.json", *(["config.json"] if cast else []))
        if cast:
            write_json(folder / "config.json", _config_of(source, cast))
    for name in names:
        if name.endswith(LINKED) and not any(fnmatchcase(name, pattern) for pattern in replaced):
            (folder / name).symlink_to((source / name).resolve())
    if not tokenizer:
        check_ends(folder)
    return facts


def _config_of(source: Path, cast: str) -> dict[str, Any]:
    config = {key: value for key, value in read_json(source / "config.json").items() if key != "torch_dtype"}
    return config | {"dtype": {"bf16": "bfloat16"}[cast]}


def _rewrite(files: list[Path], folder: Path, cast: str | None) -> dict[str, int]:
    """Write weights as safetensors, a file at a time; returns how many tensors were cast, and how many were not.

    Cast are floating-point tensors of more than 16 bits; whatever a pickle holds beside tensors is refused, never run.

    Raises:
        DataError: a file holds more than tensors.
        OSError: the disk cannot hold the copy.
    """
    import torch
    from safetensors.torch import save_file

    _check_room(files, folder, cast)
    index: dict[str, str] = {}
    counts, size = {"cast": 0, "as_published": 0}, 0
    for number, file in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        # tied weights share memory, which safetensors refuses: the first name keeps them
        seen: set[int] = set()
        tensors = {}
        for key, tensor in _tensors(file):
            if tensor.data_ptr() in seen:
                continue
            seen.add(tensor.data_ptr())
            changes = cast is not None and tensor.is_floating_point() and tensor.itemsize > 2
            tensors[key] = tensor.to(torch.bfloat16) if changes else tensor.contiguous()
            counts["cast" if changes else "as_published"] += 1
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})
    return counts


def _tensors(file: Path) -> Iterable[tuple[str, Any]]:
    import torch
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file).items()
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()
    except UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: holds more than tensors and is not read ({reason})") from None


def _check_room(files: list[Path], folder: Path, cast: str | None) -> None:
    needed = sum(file.stat().st_size for file in files) // (2 if cast else 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        said = f"{needed / 1e9:.1f} GB are needed for the base's weights at {folder}, {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, said)


def _check(source: Path, names: list[str]) -> None:
    """Say of a folder that is not what it should be what is wrong, before jobs that load it fail in other words.

    Raises:
        DataError: a file is missing, a link to nothing, cut off, or of a model that transformers does not know.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, __version__

    for file in sorted(source.iterdir()):
        if file.name.endswith(LINKED) and file.is_symlink() and not file.exists():
            raise DataError(f"{file}: a link to {file.readlink()}, where no file is; copy the folder with its files")
    if "config.json" not in names:
        raise DataError(f"{source}: there is no config.json; expected the folder of a transformers model")
    if not any(fnmatchcase(name, pattern) for name in names for pattern in VOCABULARIES):
        raise DataError(
            f"{source}: holds no tokenizer; expected one of {', '.join(VOCABULARIES)}; save the model's tokenizer there"
        )
    try:
        AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        # the lines that follow advise to update transformers, or to install it from git
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{source / 'config.json'}: transformers {__version__} cannot load it ({reason}); "
            "correct the file, or take a base of an architecture that this version knows"
        ) from None
    for name in names:
        if name.endswith(".safetensors"):
            try:
                with safe_open(source / name, "np"):
                    pass
            except (SafetensorError, OSError) as error:
                raise DataError(
                    f"{source / name}: cannot be read as safetensors ({error}); it is cut off or broken, copy it again"
                ) from None
