"""The command `sft-atlas retry`: clears failures that were recorded for good, so that the cells are tried again."""

from argparse import Namespace
from pathlib import Path

from sft_atlas import failures
from sft_atlas.commands.places import planned
from sft_atlas.errors import StudyError
from sft_atlas.study.plan import Plan, Spec


def command(options: Namespace) -> int:
    """Clear the failures of some cells, each given by a path of theirs or by a filter as `only` takes it.

    Raises:
        StudyError: a cell is none of the study's, or has not failed.
    """
    results, plan = planned(options.study)
    root = Path(results)
    for cell in options.cells:
        specs = _meant(plan, root, cell)
        cleared = failures.clear(root, (spec.output for spec in specs))
        if not cleared:
            raise StudyError(
                f"{cell}: none of its {len(specs)} results has failed; `sft-atlas status` lists those that have"
            )
        print(*(f"cleared\t{root / output}" for output in cleared), sep="\n")
    return 0


def _meant(plan: Plan, root: Path, cell: str) -> list[Spec]:
    """All jobs of the base or run that a path belongs to, or of those that a filter leaves."""
    if "=" in cell and not (root / cell).exists() and not Path(cell).exists():
        narrowed = plan.narrowed(cell)
        return list({spec.output: spec for spec in narrowed.specs.values()}.values())
    path = Path(cell)
    place = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    specs = [spec for spec in plan.by_output.values() if place in (spec.output, spec.folder)]
    found = {spec.folder for spec in specs}
    if not found:
        raise StudyError(f"{cell}: belongs to no cell of the study; `sft-atlas cells` lists them")
    return [spec for spec in plan.by_output.values() if spec.folder in found]
