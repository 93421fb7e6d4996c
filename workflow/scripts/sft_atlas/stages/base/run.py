"""Stage *bases*: every pre-trained model becomes a folder `model/` with safetensors, config and tokenizer.

A hub snapshot or a local folder is linked, file by file, and hashed; a micro base is pre-trained here from scratch.
"""

from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from sft_atlas.data.kinds import CONSOLIDATED, VOCABULARIES
from sft_atlas.data.prompt import prompt
from sft_atlas.errors import DataError
from sft_atlas.files import content_hash, whole, write_json, write_record
from sft_atlas.models.origin import record_origin
from sft_atlas.stages.base.spec import Identity, Source, Spec

LINKED = (".safetensors", ".json", ".txt", ".model", ".jinja")


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
            source = _source_folder(spec.identity.source, spec.sources)
            _link(source, temporary)
            record_origin(output, spec.identity.source.hub, source)
    write_record(output, made_from, [folder], **facts)


def _pretrain(identity: Identity, tokenizer: Path, folder: Path) -> dict[str, Any]:
    from sft_atlas.micro.pretrain import pretrain

    assert identity.source.micro and identity.template
    ask = partial(prompt, identity.template)
    record = pretrain(identity.source.micro, tokenizer.with_name("model"), ask, folder, identity.threads)
    return {key: record[key] for key in ("steps", "tokens", "loss", "parameters")}


def _source_folder(source: Source, files: list[str]) -> Path:
    if source.hub:
        from sft_atlas.data.hub import fetch

        return fetch(source.hub.id, source.hub.revision, "model")
    return Path(files[0]).parent


def _convert(pickles: list[Path], folder: Path) -> None:
    """Write the tensors of pickled weights as safetensors; whatever else a pickle holds is refused, never run.

    Raises:
        DataError: a file holds more than tensors.
    """
    import torch
    from safetensors.torch import save_file

    index: dict[str, str] = {}
    size = 0
    for number, pickle in enumerate(pickles, 1):
        try:
            state = torch.load(pickle, map_location="cpu", weights_only=True, mmap=True)
        except UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{pickle}: holds more than tensors and is not read ({reason})") from None
        name = f"model-{number:05d}-of-{len(pickles):05d}.safetensors"
        # tied weights share memory, which safetensors refuses: the first name keeps them
        seen: set[int] = set()
        tensors = {}
        for key, tensor in state.items():
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                tensors[key] = tensor.contiguous()
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def _link(source: Path, folder: Path) -> None:
    """Link the files of a model into the results, so that 15 GB are not copied; unsafe formats are left behind."""
    names = [file.name for file in source.iterdir() if file.is_file() and not fnmatchcase(file.name, CONSOLIDATED)]
    _check(source, names)
    if not any(name.endswith(".safetensors") for name in names):
        pickles = sorted(name for name in names if fnmatchcase(name, "pytorch_model*.bin"))
        if not pickles:
            raise DataError(f"{source}: holds no weights; expected .safetensors files")
        _convert([source / name for name in pickles], folder)
    for name in names:
        if name.endswith(LINKED):
            (folder / name).symlink_to((source / name).resolve())


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
