"""The plan that a command asks about: config.yaml and the study, read as the workflow reads them."""

from pathlib import Path

from sft_atlas.study.config import Config
from sft_atlas.study.load import load_config, read_yaml, study_path
from sft_atlas.study.plan import Plan
from sft_atlas.study.table import plan_study


def planned(study: str | None, folder: Path = Path()) -> tuple[str, Plan]:
    """The results folder and the plan of a study, read as the workflow reads them.

    Raises:
        StudyError: config.yaml or the study file cannot be used.
    """
    config, plan = configured(study, folder)
    return config.results, plan


def configured(study: str | None, folder: Path = Path()) -> tuple[Config, Plan]:
    """The configuration and the plan of a study, read as the workflow reads them.

    Raises:
        StudyError: config.yaml or the study file cannot be used.
    """
    declared = read_yaml(folder / "config.yaml") or {}
    config = load_config(declared | ({"study": study} if study else {}))
    path = study_path(config, folder)
    return config, plan_study(path, folder, Path(config.results)).narrowed(config.only)
