"""The command `sft-atlas prune`: results that no study file refers to, listed, and with `--yes` deleted.

What a study refers to is what planning it would make, cell by cell, whatever `only` says. A result is a folder that
holds a frozen specification; everything else below the results folder, and all that is behind a link, is left alone.
In a folder that is still referred to, outputs under other specifications go, and checkpoints of epochs that no study
keeps.
"""

import os
import shutil
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from sft_atlas.commands.places import declared_config, project_root
from sft_atlas.errors import StudyError
from sft_atlas.files import epoch_folder, read_json
from sft_atlas.stage import shared_folders
from sft_atlas.study.load import load_config, read_yaml, study_path
from sft_atlas.study.plan import Plan
from sft_atlas.study.table import plan_study

SPEC, RECORD = ".spec.json", ".record.json"
LOCKS = Path(".snakemake/locks")


def command(options: Namespace) -> int:
    """List what no study refers to, or delete it.

    Raises:
        StudyError: a study cannot be planned, so that nobody knows what it refers to; or a workflow is running.
    """
    declared, root = declared_config(), project_root()
    config = load_config(declared)
    studies = sorted((root / "studies").glob("*.yaml"))
    named = [config.study, *options.studies]
    studies += [study_path(load_config(declared | {"study": name}), root) for name in named]
    if options.yes and LOCKS.is_dir() and any(LOCKS.iterdir()):
        raise StudyError(
            f"{LOCKS}: a workflow is running here, or was cut off; wait for it, or run `snakemake --unlock`, then prune"
        )
    results = Path(config.results)
    found = list(unreferred(results, dict.fromkeys(studies)))
    total = 0
    for group in found:
        size = sum(map(_size, group))
        total += size
        if options.yes:
            for path in group:
                delete(path, results)
        also = " with its specification and record" if len(group) > 1 else ""
        print(f"{'deleted' if options.yes else 'would delete'}\t{size / 1e6:.3f} MB\t{group[0]}{also}")
    hint = "" if options.yes or not found else "; delete them with --yes"
    print(f"{len(found):,} results that none of {len(set(studies))} studies refers to, {total / 1e9:.3f} GB{hint}")
    return 0


def unreferred(results: Path, studies: Iterable[Path]) -> Iterator[list[Path]]:
    """Folders below the results that no study refers to, outermost only, and single outputs with what belongs to them.

    Raises:
        StudyError: a study cannot be planned.
    """
    outputs: set[str] = set()
    epochs: dict[str, set[str]] = {}
    names: set[str] = set()
    for path in studies:
        names |= {path.stem, f"{path.stem}-partial"}
        plan = _plan(path, results)
        if plan is None:
            continue
        outputs |= plan.by_output.keys()
        for spec in plan.select("train"):
            kept = {epoch_folder(Path(spec.output), epoch).name for epoch in spec.identity["epochs"]}
            epochs.setdefault(str(PurePosixPath(spec.output).parent), set()).update(kept)
    folders = {str(PurePosixPath(output).parent) for output in outputs}
    for place, below, files in os.walk(results):
        # os.walk goes into no link, but names those to folders
        below[:] = sorted(name for name in below if not Path(place, name).is_symlink())
        folder = Path(place).relative_to(results).as_posix()
        top = folder.split("/")[0]
        frozen = [name for name in sorted(files) if name.endswith(SPEC)]
        if folder == "." or not frozen:
            continue
        if (top not in shared_folders() and top not in names) or (top in shared_folders() and folder not in folders):
            below.clear()
            yield [Path(place)]
        elif top in shared_folders():
            for name in frozen:
                output = read_json(Path(place, name))["output"]
                if output not in outputs:
                    stem = name.removesuffix(SPEC)
                    trio = [Path(place, PurePosixPath(output).name), Path(place, name), Path(place, stem + RECORD)]
                    yield [path for path in trio if path.is_file() and not path.is_symlink()]
            if folder in epochs:
                stale = [name for name in below if name.startswith("epoch-") and name not in epochs[folder]]
                below[:] = [name for name in below if name not in stale]
                yield from ([Path(place, name)] for name in stale)


def _plan(path: Path, results: Path) -> Plan | None:
    """The plan of a study; None for a study with a table, which refers to nothing but its own folder."""
    declared = read_yaml(path)
    if isinstance(declared, dict) and "table" in declared:
        return None
    try:
        return plan_study(path, project_root(), results)
    except StudyError as error:
        raise StudyError(
            f"{error}\n{path}: cannot be planned, so what it refers to is not known and nothing is pruned; mend it, or "
            "move it out of studies/"
        ) from None


def delete(path: Path, results: Path) -> None:
    """Delete a file or folder below the results, and the folders above it that are empty then; links are removed, not
    followed.

    Raises:
        ValueError: the path is a link, or does not lie below the results folder.
    """
    root = results.resolve()
    if path.is_symlink() or root not in path.resolve().parents:
        raise ValueError(f"{path}: does not lie in {root}; nothing is deleted there")
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    above = path.parent
    while above.resolve() != root and not any(above.iterdir()):
        above.rmdir()
        above = above.parent


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; a link counts as itself."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(Path(place, name).lstat().st_size for place, _, names in os.walk(path) for name in names)
