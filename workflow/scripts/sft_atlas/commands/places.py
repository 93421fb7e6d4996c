"""Where a command finds the project, its studies and config.yaml: where Snakemake does.

The project is the folder of the Snakefile: SFT_ATLAS_ROOT, else the folder in which the command is called if that is a
checkout, else the one that the package was installed from. Studies are its `studies/`. The working folder
(`--directory`) has results, logs and, if it is to differ from the project's, a config.yaml.
"""

import os
from pathlib import Path
from typing import Any

import sft_atlas
from sft_atlas.errors import StudyError
from sft_atlas.study.checks import check_places
from sft_atlas.study.config import Config
from sft_atlas.study.load import load_config, read_yaml, study_path
from sft_atlas.study.plan import Plan
from sft_atlas.study.table import plan_study

PACKAGE = "workflow/scripts/sft_atlas"


def project_root() -> Path:
    """The project's folder; the working folder where there is none to be found.

    Raises:
        StudyError: SFT_ATLAS_ROOT names another folder.
    """
    if told := os.environ.get("SFT_ATLAS_ROOT"):
        if not Path(told, PACKAGE).is_dir():
            raise StudyError(
                f"SFT_ATLAS_ROOT: there is no {PACKAGE} in {told!r}; name the project's folder, or unset it"
            )
        return Path(told)
    installed = Path(sft_atlas.__file__).resolve().parents[3]
    here = Path.cwd()
    return next((place for place in (here, installed) if (place / PACKAGE).is_dir()), here)


def enter(directory: str | None) -> None:
    """Go to the folder of a run, as `snakemake --directory` does; the project stays the one that is meant here.

    Raises:
        StudyError: there is no such folder.
    """
    if directory is None:
        return
    os.environ["SFT_ATLAS_ROOT"] = str(project_root())
    try:
        os.chdir(directory)
    except OSError as error:
        raise StudyError(f"--directory: {directory!r}: {error.strerror}; name the folder of a run") from None


def declared_config() -> dict[str, Any]:
    """What config.yaml says: that of the working folder, else the project's.

    Raises:
        StudyError: it cannot be read, or is no mapping.
    """
    root = project_root()
    own = Path("config.yaml")
    path = own if own.exists() or not (root / own).exists() else root / own
    declared = read_yaml(path) or {}
    if not isinstance(declared, dict):
        raise StudyError(f"{path}: expected a mapping of keys; found {declared!r:.80}")
    return declared


def planned(study: str | None) -> tuple[str, Plan]:
    """The results folder and the plan of a study, read as the workflow reads them.

    Raises:
        StudyError: config.yaml or the study file cannot be used.
    """
    config, plan = configured(study)
    return config.results, plan


def configured(study: str | None) -> tuple[Config, Plan]:
    """The configuration and the plan of a study, read as the workflow reads them.

    Raises:
        StudyError: config.yaml or the study file cannot be used.
    """
    root = project_root()
    config = load_config(declared_config() | ({"study": study} if study else {}))
    check_places(config, root)
    return config, plan_study(study_path(config, root), root, Path(config.results)).narrowed(config.only)
