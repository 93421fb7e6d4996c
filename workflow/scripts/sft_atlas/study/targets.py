"""What a user may ask Snakemake for, and which target comes nearest to one that does not exist."""

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from sft_atlas.files import read_json
from sft_atlas.study.load import unknown


def mistaken_target(
    asked: Iterable[str], names: Collection[str], made: Iterable[str], outputs: Collection[str], results: str
) -> str | None:
    """One line about the first target that nothing makes, or None if there is none.

    `names` are targets to type, `made` what else has no wildcards, and `outputs` paths below the results folder. A file
    that exists, or that an earlier run has planned, is no mistake.
    """
    known = {*names, *made}
    for target in asked:
        path = PurePosixPath(Path(target)).as_posix()
        output = path.removeprefix(f"{results}/")
        if target in known or output in outputs or Path(target).exists() or _was_planned(Path(results, output)):
            continue
        if "/" not in target:
            longer = [name for name in names if name.startswith(target)]
            return (
                unknown("target", target, names)
                if not longer
                else (f"unknown target {target!r}; did you mean '{longer[0]}'?")
            )
        near = difflib.get_close_matches(output, _alike(output, outputs), n=1, cutoff=0.5)
        hint = f"; did you mean '{results}/{near[0]}'?" if near else ""
        return f"no job of this study makes {target!r} (`sft-atlas cells` lists its paths){hint}"
    return None


def _alike(found: str, valid: Collection[str], most: int = 2000) -> list[str]:
    """Those with the most parts in common first, at most so many: comparing letter by letter takes long."""
    parts = set(found.split("/"))
    return sorted(valid, key=lambda name: -len(parts & set(name.split("/"))))[:most]


def _was_planned(path: Path) -> bool:
    """Whether an earlier run has frozen a specification for a path."""
    frozen = path.parent.glob("*.spec.json") if path.parent.is_dir() else []
    return any(PurePosixPath(read_json(file)["output"]).name == path.name for file in frozen)
