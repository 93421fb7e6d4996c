"""The command `sft-atlas verify`: are finished results still what was recorded when they were made?

Recomputed are the SHA-256 of every file that a manifest or record names (bases, datasets, samples, tokens, checkpoints,
logs, scores and weights), of every job's declared output, and the hash of every frozen specification; compared are the
checkpoints that scores and weights were measured on. Not covered: resumable states, which are used once, and the
tables and figures of a study, which are made again in seconds. Nothing is written but, for a moment, the file that a
delta stands for.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_atlas.commands.places import declared_config
from sft_atlas.errors import StudyError
from sft_atlas.files import epoch_folder, read_json
from sft_atlas.hashing import sha256
from sft_atlas.stage import stages
from sft_atlas.study.identity import spec_file, spec_hash
from sft_atlas.study.load import load_config

SPEC, RECORD = ".spec.json", ".record.json"
# what lies in them is named by records beside them, or is no finished result
SKIPPED = ("model", "state", "lease")
# records of what a run's manifest gathers; other pieces have the name of what gathers them, or lie in a folder of it
OF_RUN = ("checkpoint.json", "log.json")
EPOCH = "epoch-"
PROGRESS_SECONDS = 5.0


@dataclass
class Report:
    """Problems found, and how much was looked at; prints progress to stderr."""

    problems: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    specs: int = 0
    records: int = 0
    released: int = 0
    unrecorded: int = 0
    hashes: dict[Path, str] = field(default_factory=dict)
    said: float = field(default_factory=time.monotonic)

    def add(self, path: Path, found: str, mend: str) -> None:
        """One line: which file, what is wrong with it, what to do."""
        self.problems.append(f"{path}: {found}; {mend}")

    def hash(self, path: Path) -> str:
        """SHA-256 of a file, computed once."""
        if path not in self.hashes:
            self.hashes[path] = sha256(path)
            self.files += 1
            self.size += path.stat().st_size
            if time.monotonic() - self.said > PROGRESS_SECONDS:
                self.said = time.monotonic()
                print(f"verify: {self.summary()}; now at {path}", file=sys.stderr, flush=True)
        return self.hashes[path]

    def summary(self) -> str:
        """Counts so far."""
        counted = f"{self.files:,} files ({self.size / 1e9:.3f} GB), {self.records:,} records, {self.specs:,} specs"
        counted += f", {self.released:,} files released as the study says" if self.released else ""
        unknown = f", {self.unrecorded:,} outputs without a recorded hash" if self.unrecorded else ""
        return f"{counted}{unknown}, {len(self.problems):,} problem{'' if len(self.problems) == 1 else 's'}"


def command(options: Namespace) -> int:
    """Verify the paths given, or all results; a line per problem on stdout, the counts on stderr; 1 if there are any.

    Raises:
        StudyError: a path is not there, is not below the results folder, or holds no results.
    """
    results = Path(load_config(declared_config()).results)
    for path in options.paths:
        if Path(path).exists() and not Path(path).resolve().is_relative_to(results.resolve()):
            raise StudyError(f"{path}: is not below {results}, the results folder of config.yaml; give paths there")
    report = verify([Path(path) for path in options.paths] or [results])
    print(*report.problems, sep="\n", end="\n" if report.problems else "")
    print(f"verify: {report.summary()}", file=sys.stderr)
    return 1 if report.problems else 0


def verify(paths: Iterable[Path]) -> Report:
    """Check everything below folders; of a file, everything in the folder that it lies in.

    Raises:
        StudyError: a path is not there, or holds no results.
    """
    report = Report()
    for path in paths:
        if not path.exists():
            raise StudyError(f"{path}: there is no such file or folder; give paths below the results folder")
        found = list(_json_files(path if path.is_dir() else path.parent))
        if not found:
            raise StudyError(f"{path}: holds no manifest, record or specification; give paths below the results folder")
        jobs = []
        for file in found:
            try:
                content = read_json(file)
            except ValueError:
                report.add(file, "is not valid JSON any more", _mend(file))
                continue
            if file.name.endswith(SPEC):
                _check_spec(file, content, report)
            elif file.name.endswith(RECORD):
                jobs.append((file, content))
            elif isinstance(content, dict) and "made_from" in content:
                _check_record(file, content, report)
        _check_outputs(jobs, report)
    return report


def _json_files(folder: Path) -> Iterator[Path]:
    """JSON files below a folder, in order; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".json") and not name.startswith("."))


def _check_spec(file: Path, spec: dict[str, Any], report: Report) -> None:
    """The hash of a frozen specification, and of the run in it."""
    report.specs += 1
    mend = "delete it, and snakemake freezes it again if the study still plans it"
    try:
        found = spec_hash(spec["stage"], spec["version"], spec["identity"])
        if found != spec["hash"] or file.name != Path(spec_file(spec["output"], found)).name:
            report.add(file, f"was changed after it was frozen (its content has the hash {found})", mend)
        elif spec["stage"] == "train":
            run = spec_hash("run", spec["version"], spec["identity"]["settings"])
            if run != spec["identity"]["run"]:
                report.add(file, f"names run {spec['identity']['run']}, but its settings are those of run {run}", mend)
    except (KeyError, TypeError, ValueError):
        report.add(file, f"lacks what a specification has (stages: {', '.join(stages())})", mend)


def _check_record(file: Path, content: dict[str, Any], report: Report) -> None:
    """The files of a manifest or of a piece's record, and the checkpoint that a piece was made from."""
    report.records += 1
    described = [(file, entry) for entry in content.get("files", [])]
    if isinstance(content.get("epochs"), dict):
        # a run's manifest repeats what the records of its checkpoints say
        for epoch, entries in content["epochs"].items():
            described += [(epoch_folder(file, int(epoch)) / "checkpoint.json", entry) for entry in entries]
    for record, entry in described:
        if "sha256" in entry:
            _check_file(record.parent / entry["name"], entry, record, report)
    made_from = content["made_from"].get("model")
    for folder in (file.parent, file.parent.parent):
        checkpoint = folder / "checkpoint.json"
        measured = made_from and folder.name.startswith(EPOCH) and checkpoint.is_file()
        if measured and report.hash(checkpoint) != made_from:
            report.add(file, f"was made from another checkpoint than {checkpoint} records now", _mend(file))


def _check_file(path: Path, entry: dict[str, Any], record: Path, report: Report) -> None:
    """One file against its record, once."""
    if path in report.hashes:
        return
    linked = f" (a link to {path.readlink()})" if path.is_symlink() else ""
    if not path.is_file():
        if path.suffix == ".safetensors" and _is_released(path, record, report):
            report.hashes[path] = ""
            report.released += 1
            return
        report.hashes[path] = ""
        report.add(path, f"is missing{linked}", _mend(record))
        return
    size = path.stat().st_size
    if size != entry["size"]:
        report.hashes[path] = ""
        report.add(path, f"has {size} bytes{linked}, {entry['size']} were recorded", _mend(record))
    elif (found := report.hash(path)) != entry["sha256"]:
        recorded = entry["sha256"]
        report.add(path, f"has changed{linked}: SHA-256 {found[:12]}…, recorded {recorded[:12]}…", _mend(record))


def _is_released(path: Path, record: Path, report: Report) -> bool:
    """Whether weights were given back as the study says; a delta in their place must give them back whole."""
    epoch = path.parent.parent
    delta = path.with_name(f"{path.name}.delta")
    for file in sorted(epoch.parent.glob("release-*.json")):
        if file.name.endswith((SPEC, RECORD)):
            continue
        release = read_json(file)
        if not release["freed_bytes"].get(str(int(epoch.name.removeprefix(EPOCH)))):
            continue
        if release["keep"] == "deltas":
            if not delta.is_file():
                continue
            _check_delta(delta, record, report)
        return True
    return False


def _check_delta(delta: Path, record: Path, report: Report) -> None:
    """Decode a delta beside it; that compares the SHA-256 of what comes out."""
    if delta in report.hashes:
        return
    report.hash(delta)
    # torch and its like are not needed, but pyarrow is
    from sft_atlas.models.deltas import decode

    run = delta.parents[2]
    spec = read_json(next(run.glob(f"train-*{SPEC}")))
    results = run.parents[len(Path(spec["output"]).parts) - 2]
    target = delta.with_name(f".{delta.name}.verify")
    try:
        decode(delta, (results / spec["inputs"]["base"]).with_name("model"), target)
    except (ValueError, OSError, KeyError, IndexError) as error:
        report.add(delta, f"does not give its weights back ({str(error).splitlines()[0]})", _mend(record))
    finally:
        target.unlink(missing_ok=True)


def _check_outputs(jobs: list[tuple[Path, dict[str, Any]]], report: Report) -> None:
    """Declared outputs against the record of the job that made them last."""
    last: dict[Path, dict[str, Any]] = {}
    for file, record in sorted(jobs, key=lambda job: job[1].get("started", 0)):
        if "output" in record:
            last[file.with_name(Path(record["output"]).name)] = record
    for output, record in sorted(last.items()):
        if not output.is_file():
            report.add(output, "is missing, though its job ended well", f"if you still need it: {_make([output])}")
        elif not (recorded := record.get("output_sha256")):
            report.unrecorded += 1
        elif (found := report.hash(output)) != recorded:
            report.add(
                output,
                f"has changed: SHA-256 {found[:12]}…, recorded {recorded[:12]}…",
                f"delete {output} and run {_make([output])}",
            )


def _mend(record: Path) -> str:
    """What to delete so that snakemake makes the files of a record again, and nothing else.

    A manifest is itself a declared output. Records of pieces lie beside the outputs that gather them or below, in
    `epoch-NN` folders and folders named like the output: `epoch-01/scores/….json` is gathered in `scores-….parquet`.
    """
    owner = record.parent
    if record.name in OF_RUN:
        pattern = "train-*.json"
    elif owner.name.startswith(EPOCH):
        pattern = f"{record.stem}-*"
    else:
        pattern, owner = f"{owner.name}-*", owner.parent
    if owner.name.startswith(EPOCH):
        owner = owner.parent
    gathered = [] if record.name == "manifest.json" else sorted(owner.glob(pattern))
    outputs = [file for file in gathered if file.is_file() and not file.name.endswith((SPEC, RECORD))]
    return f"delete {' '.join(map(str, [record, *outputs]))} and run {_make(outputs or [record])}"


def _make(outputs: list[Path]) -> str:
    """The command that makes outputs again; without their names, Snakemake makes what it still needs only."""
    return f"`snakemake --profile local -- {' '.join(map(str, outputs))}`"
