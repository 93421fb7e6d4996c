"""Revisions that can move: branches, tags, and commits cut short; only the 40 digits of a commit name one content."""

from collections.abc import Iterator
from typing import Any

from sft_atlas.errors import StudyError
from sft_atlas.nodes import Dataset
from sft_atlas.study.identity import is_commit
from sft_atlas.study.model import Hub
from sft_atlas.study.plan import Plan

MOST_NAMED = 3


def hub_sources(plan: Plan) -> Iterator[tuple[str, str, str, Hub]]:
    """Every hub source of a plan's jobs, by section, name and key in the study."""
    study = plan.study
    used: dict[str, dict[str, Any]] = {
        "bases": {name: study.bases[name] for name in plan.bases},
        "datasets": {name: study.datasets[name] for name in _datasets(plan)},
        "benchmarks": study.benchmarks,
    }
    for section, entries in used.items():
        for name, declared in entries.items():
            for key in ("hub", "shots_hub"):
                if hub := getattr(declared, key, None):
                    yield section, name, key, hub


def _datasets(plan: Plan) -> list[str]:
    return sorted(key.dataset for _, key in plan.specs if isinstance(key, Dataset))


def moving(plan: Plan) -> str | None:
    """One line about the sources whose revision can move, and what to do; None if there is none."""
    found = [
        f"{'.'.join(key)}.revision: {hub.revision}" for *key, hub in hub_sources(plan) if not is_commit(hub.revision)
    ]
    if not found:
        return None
    named = "; ".join(found[:MOST_NAMED]) + (f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")
    return (
        f"{plan.name}: revisions that can move, so that the same study may mean other data tomorrow: {named}. Let "
        f"`sft-atlas pin --study {plan.name}` write the commits behind them, or say `allow_moving: true` in the study"
    )


def refuse_moving(plan: Plan) -> None:
    """Refuse a real run on a revision that can move, unless the study accepts that.

    Raises:
        StudyError: names the first sources and what to do.
    """
    said = None if plan.study.allow_moving else moving(plan)
    if said:
        raise StudyError(said)
