"""The command `sft-atlas`: what is not a file target of the workflow."""

import argparse
import os
import sys
from pathlib import Path

from sft_atlas.cluster.efficiency import efficiency_lines
from sft_atlas.cluster.queue import QueueError
from sft_atlas.cluster.recover import recover_lines
from sft_atlas.cluster.status import status_lines
from sft_atlas.commands import pin, preflight, prune, retry, verify
from sft_atlas.commands.places import configured, enter, planned
from sft_atlas.commands.why import Reasons
from sft_atlas.cost.estimates import Estimates
from sft_atlas.errors import StudyError
from sft_atlas.nodes import Base
from sft_atlas.study.plan import Plan


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; a study that cannot be read is one line on stderr and status 1."""
    parser = argparse.ArgumentParser(prog="sft-atlas", description="Questions about a study that no file answers.")
    commands = parser.add_subparsers(dest="command", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--directory", "-d", help="the folder of the run, as Snakemake's --directory; default: here")
    cells = commands.add_parser(
        "cells", parents=[where], help="list every cell of a study with its blocks and its files"
    )
    cells.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    cells.set_defaults(run=cells_command)
    why = commands.add_parser(
        "why", parents=[where], help="say why a result would be made again, down to the field that changed"
    )
    why.add_argument("target", help="a path below the results folder, or one of all, collect, analyse, report")
    why.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    why.set_defaults(run=why_command)
    status = commands.add_parser(
        "status", parents=[where], help="say where a study stands: what is done, runs, waits, failed and why"
    )
    status.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    status.set_defaults(run=status_command)
    used = commands.add_parser(
        "efficiency", parents=[where], help="compare what jobs asked for with what they used, by stage"
    )
    used.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    used.set_defaults(run=efficiency_command)
    recover = commands.add_parser(
        "recover", parents=[where], help="show what a killed run has left in SLURM, and remove its lock"
    )
    recover.add_argument("--study", help="not needed: all studies of a folder share its jobs")
    recover.add_argument("--cancel", action="store_true", help="cancel its jobs and wait for their end")
    recover.add_argument("--wait", action="store_true", help="wait for the end of its jobs")
    recover.set_defaults(run=recover_command)
    ask = commands.add_parser(
        "preflight", parents=[where], help="ask the hub and the site whether all that the study names is there"
    )
    ask.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    ask.add_argument("--profile", help="profile whose partitions and account are looked up; default: profiles/default")
    ask.set_defaults(run=preflight.command)
    pinned = commands.add_parser("pin", parents=[where], help="write the commits behind branches into the study file")
    pinned.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    pinned.set_defaults(run=pin.command)
    check = commands.add_parser(
        "verify", parents=[where], help="recompute the hashes of finished results; status 1 if any differs"
    )
    check.add_argument("paths", nargs="*", metavar="PATH", help="files or folders below the results; default: all")
    check.set_defaults(run=verify.command)
    spare = commands.add_parser(
        "prune", parents=[where], help="list results that no study file refers to; with --yes, delete them"
    )
    spare.add_argument("studies", nargs="*", metavar="STUDY", help="further studies to keep: names, or paths")
    spare.add_argument("--yes", action="store_true", help="delete what is listed")
    spare.set_defaults(run=prune.command)
    again = commands.add_parser(
        "retry", parents=[where], help="clear failures that were recorded for good, so that cells are tried again"
    )
    again.add_argument(
        "cells", nargs="+", metavar="CELL", help="a path of the cell's, or a filter like base=…,sample=…"
    )
    again.add_argument("--study", help="a name in studies/ or a path; default: what config.yaml says")
    again.set_defaults(run=retry.command)
    options = parser.parse_args(arguments)
    try:
        enter(options.directory)
        done = int(options.run(options))
        sys.stdout.flush()
    except (StudyError, QueueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # whoever reads, `head` perhaps, has read enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return done


def cells_command(options: argparse.Namespace) -> int:
    """`sft-atlas cells`."""
    results, plan = planned(options.study)
    print("\n".join(cell_lines(plan, Path(results))))
    return 0


def why_command(options: argparse.Namespace) -> int:
    """`sft-atlas why`."""
    results, plan = planned(options.study)
    print("\n".join(Reasons(plan, Path(results)).explain(options.target)))
    return 0


def status_command(options: argparse.Namespace) -> int:
    """`sft-atlas status`."""
    print("\n".join(status_lines(*_priced(options.study))))
    return 0


def efficiency_command(options: argparse.Namespace) -> int:
    """`sft-atlas efficiency`."""
    print("\n".join(efficiency_lines(*_priced(options.study))))
    return 0


def recover_command(options: argparse.Namespace) -> int:
    """`sft-atlas recover`."""
    print("\n".join(recover_lines(Path(), options.cancel, options.wait)))
    return 0


def _priced(study: str | None) -> tuple[Plan, Estimates]:
    config, plan = configured(study)
    places = (Path(config.results), config.device, config.micro_batch_size)
    return plan, Estimates(plan, *places, gpu_memory_gb=config.gpu_memory_gb, max_runtime=config.max_runtime)


def cell_lines(plan: Plan, results: Path) -> list[str]:
    """One line per cell, tab-separated with a header: names, blocks, whether its files are there, and the files."""
    lines = ["\t".join(("base", "sample", "recipe", "seed", "epoch", "blocks", "train", "scores", "weights", "target"))]
    for base in plan.bases:
        target = results / plan.job("evaluate", Base(base)).output
        lines.append("\t".join((base, "", "", "", "0", "", "", _yes(target.exists()), "", str(target))))
    for key, run in plan.matrix.runs.items():
        specs = [plan.job(stage, key) for stage in ("train", "evaluate", "weights")]
        there = [_yes((results / spec.output).exists()) for spec in specs]
        for epoch, blocks in run.epochs.items():
            names = (key.base, key.sample, key.recipe, str(key.seed), str(epoch), ",".join(blocks))
            lines.append("\t".join((*names, *there, str(results / specs[1].output))))
    for (key, epoch), reason in plan.matrix.missing.items():
        names = (key.base, key.sample, key.recipe, str(key.seed), str(epoch), "")
        lines.append("\t".join((*names, "", "", "", f"expected missing: {reason}")))
    return lines


def _yes(there: bool) -> str:
    return "yes" if there else "no"


if __name__ == "__main__":
    sys.exit(main())
