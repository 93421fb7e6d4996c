"""Reads a study file into its typed model, or explains in one line per problem why it cannot."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sft_atlas.errors import StudyError
from sft_atlas.stage import shared_folders
from sft_atlas.study.config import Config
from sft_atlas.study.grid import RecipeGrid, is_grid, members
from sft_atlas.study.model import NAME, Study

MAX_BYTES = 4 * 1024 * 1024
MAX_DIGITS = 100
MERGE = "tag:yaml.org,2002:merge"
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: `1e-4` is a number, `no` and dates are text, keys are text, none may stand twice.

    Aliases (`*name`) and merge keys (`<<`) are understood, as long as the file is no larger with each alias written out
    than a file may be without any.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}
        self._expanded = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse tags, which a study has no use for, and aliases that blow a small file up beyond memory."""
        event = self.peek_event()
        if getattr(event, "tag", None):
            raise _problem(f"tags ({event.tag}) are not supported", event)
        before = self._expanded
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _problem(f"alias *{event.anchor} stands inside what it stands for", event)
            self._expanded += self._sizes[id(node)]
        else:
            self._expanded += 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            self._sizes[id(node)] = self._expanded - before
        if self._expanded > MAX_BYTES:
            raise _problem(f"with its aliases (*name) written out, a study has more than {MAX_BYTES} characters", event)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that stands twice, of which plain YAML would silently keep the last; all keys are text."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for number, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise _problem("a key must be plain text", key)
            if key.value in seen:
                raise _problem(f"key '{key.value}' stands twice", key)
            seen.add(key.value)
            if key.tag != MERGE:
                # another node: by an alias this one may be a value elsewhere
                text = yaml.ScalarNode("tag:yaml.org,2002:str", key.value, key.start_mark, key.end_mark)
                node.value[number] = (text, value)
        return node


def _problem(text: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=place.start_mark)


def _integer(loader: _Loader, node: Any) -> int:
    """SafeLoader would read 010 as octal 8; here it is ten, as in YAML 1.2."""
    if len(node.value) > MAX_DIGITS:
        raise _problem(f"a number of {len(node.value)} digits", node)
    return int(loader.construct_scalar(node))


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        StudyError: the file is missing, too large, not UTF-8, or not YAML; names the file and the line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudyError(f"{path}: {path.stat().st_size} bytes; a study file has at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, StudyError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"{path}: cannot be read ({reason}); give the path of a YAML file") from None
    return _parsed(text, path, yaml.load)


def compose_yaml(text: str, path: Path) -> Any:
    """The nodes of a YAML text, with their places in it.

    Raises:
        StudyError: it is not YAML; names the file and the line.
    """
    return _parsed(text, path, yaml.compose)


def _parsed(text: str, path: Path, read: Callable[..., Any]) -> Any:
    try:
        return read(text, Loader=_Loader)
    except RecursionError:
        raise StudyError(f"{path}: nested too deeply to be a study") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise StudyError(f"{path}{line}: not valid YAML here: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None


def check_device(config: Config, study: Study, path: Path) -> None:
    """Refuse recipes that the machine of config.yaml cannot train, before any job.

    Raises:
        StudyError: names the recipe.
    """
    for name, recipe in study.recipes.items():
        if config.device == "cpu" and recipe.optimizer != "adamw":
            raise StudyError(
                f"{path}: recipes.{name}.optimizer: found {recipe.optimizer!r}, which runs on a GPU only, and "
                "config.yaml says device: cpu; use 'adamw'"
            )


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: one line for each problem: file, key path, what was found, what was expected, the nearest name.
    """
    study = validate(Study, _without_grids(_declared(path, ()), path), path)
    problems = [
        f"{section}: {_shown(name)} is no valid name; use letters, digits and . _ - + (at most 64)"
        for section in ("bases", "datasets", "recipes", "blocks", "subsets", "benchmarks")
        for name in getattr(study, section)
        if not NAME.fullmatch(name)
    ]
    for name, benchmark in study.benchmarks.items():
        for index, dataset in enumerate(benchmark.matches):
            if dataset not in study.datasets:
                problems.append(f"benchmarks.{name}.matches[{index}]: {unknown('dataset', dataset, study.datasets)}")
        original, others = benchmark.translation_of, study.benchmarks.keys() - {name}
        if original is not None and original not in others:
            problems.append(f"benchmarks.{name}.translation_of: {unknown('benchmark', original, others)}")
    if problems:
        raise StudyError("\n".join(f"{path}: {problem}" for problem in problems))
    return study


def _declared(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A study file's keys; those it does not have come from the study it extends, whole sections at a time."""
    declared = read_yaml(path)
    if not isinstance(declared, dict):
        raise StudyError(f"{path}: a study is a mapping of keys; found {_shown(declared)}")
    parent = declared.pop("extends", None)
    if parent is None:
        return declared
    studies = [file.stem for file in sorted(path.parent.glob("*.yaml")) if file != path]
    if not isinstance(parent, str) or parent not in studies:
        raise StudyError(f"{path}: extends: {unknown('study', parent, studies)}")
    if path in seen:
        raise StudyError(f"{path}: extends: a study cannot extend itself, not even by way of {seen[-1].name}")
    return _declared(path.with_name(f"{parent}.yaml"), (*seen, path)) | declared


def _without_grids(declared: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same keys with every recipe that lists values (grid.py) replaced by the recipes it stands for."""
    recipes = declared.get("recipes")
    if not isinstance(recipes, dict):
        return declared
    expanded: dict[str, Any] = {}
    for name, recipe in recipes.items():
        found = {name: recipe}
        if is_grid(name, recipe):
            validate(RecipeGrid, recipe, path, ("recipes", name))
            try:
                found = members(name, recipe)
            except ValueError as error:
                raise StudyError(f"{path}: recipes.{name}: {error}") from None
        if twice := found.keys() & (expanded.keys() | recipes.keys() - {name}):
            raise StudyError(f"{path}: recipes.{name}: makes a second recipe named {min(twice)!r}; rename one of them")
        expanded |= found
    return declared | {"recipes": expanded}


def load_config(config: dict[str, Any], path: Path = Path("config.yaml")) -> Config:
    """Validate config.yaml's content, as Snakemake has merged it with the command line.

    Raises:
        StudyError: as `load_study`.
    """
    return validate(Config, config, path)


def study_path(config: Config, root: Path) -> Path:
    """Where the configured study stands: `studies/NAME.yaml`, or the path itself if it ends in .yaml.

    Raises:
        StudyError: there is no such file; names the studies there are. Or its name is no name for a folder.
    """
    if config.study.endswith((".yaml", ".yml")):
        path = Path(config.study)
        if not path.is_file():
            raise StudyError(f"config.yaml: study: there is no file {config.study!r}; give a path to a YAML file")
        if not NAME.fullmatch(path.stem) or path.stem in shared_folders():
            raise StudyError(
                f"config.yaml: study: {path.stem!r} names the study's folder in the results; use letters, digits and "
                f". _ - + (at most 64), and none of {', '.join(shared_folders())}"
            )
        return path
    path = root / "studies" / f"{config.study}.yaml"
    if not NAME.fullmatch(config.study) or not path.is_file():
        studies = [file.stem for file in sorted((root / "studies").glob("*.yaml"))]
        raise StudyError(f"config.yaml: study: {unknown('study', config.study, studies)}")
    return path


def validate(model: type[Model], declared: dict[str, Any], path: Path, place: Sequence[str] = ()) -> Model:
    """Validate a mapping that stands at a place of a file, with errors a user can act on (see `StudyError`)."""
    try:
        return model.model_validate(declared)
    except ValidationError as error:
        lines = _explain(model, error.errors(), key_path(place))
        raise StudyError("\n".join(f"{path}: {line}" for line in lines)) from None


def unknown(kind: str, found: str, valid: Iterable[str]) -> str:
    """Say that a name is not known, which are, and which comes nearest."""
    names = sorted(valid)
    nearest = _nearest(str(found), names)
    shown = ", ".join(names[:16]) + (", …" if len(names) > 16 else "")
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown {kind} {_shown(found)}; expected one of: {shown or 'none declared'}{hint}"


def _explain(model: type[BaseModel], problems: Sequence[Any], place: str = "") -> list[str]:
    """One line for each place that is wrong; of a mistyped key only that it is unknown, not also that it is missing."""
    lines: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    mistyped: set[str] = set()
    for problem in problems:
        location = [part for part in problem["loc"] if not _is_validator_step(part)]
        where = key_path(location)
        if problem["type"] == "extra_forbidden":
            siblings = _fields_at(model, location[:-1])
            mistyped.update(key_path([*location[:-1], name]) for name in _nearest(str(location[-1]), siblings))
            lines[where] = [unknown("key", str(location[-1]), siblings)]
        elif problem["type"] == "missing":
            missing[where] = ["this key is missing; it is needed"]
        else:
            lines.setdefault(where, []).append(_expected(problem))
    lines |= {where: texts for where, texts in missing.items() if where not in mistyped}
    return [
        f"{'.'.join(filter(None, (place, where))) or 'the file'}: {' or '.join(dict.fromkeys(texts))}"
        for where, texts in lines.items()
    ]


def _expected(problem: Any) -> str:
    found = problem["input"]
    if problem["type"] == "literal_error" and isinstance(found, str):
        return unknown("value", found, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping of keys", message)
    kind = "a mapping" if isinstance(found, dict) else "a list" if isinstance(found, list) else None
    if problem["type"] == "too_short" and kind:
        return f"expected at least one entry; found {kind} without any"
    if kind:
        return message if problem["type"] == "value_error" else f"{message}; found {kind}"
    return f"{message}; found {_shown(found)}"


def key_path(location: Iterable[str | int]) -> str:
    """`("blocks", "main", "seeds", 0)` → `blocks.main.seeds[0]`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _nearest(found: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(found, names, n=1, cutoff=0.5)


def _is_validator_step(part: Any) -> bool:
    # pydantic puts the branch of a union and the name of a validator into the location; a user knows neither
    return isinstance(part, str) and (
        part == "[key]"
        or part.startswith(("function-", "literal[", "list[", "constrained-"))
        or part in ("str", "int", "float", "bool")
    )


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that a declaration knows at a place of the study, found by walking the models' annotations."""
    kinds: list[Any] = [model]
    for part in location:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return list(dict.fromkeys(name for kind in kinds if _is_model(kind) for name in kind.model_fields))


def _inside(kind: Any, part: str | int) -> list[Any]:
    """The types that a key of a model, an entry of a mapping or an item of a list may have."""
    if _is_model(kind):
        return _alternatives(kind.model_fields[part].annotation) if part in kind.model_fields else []
    arguments = get_args(kind)
    position = {dict: 1, list: 0}.get(get_origin(kind))
    return [] if position is None else _alternatives(arguments[position])


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union, or the only one, without what `Annotated` adds to them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for argument in get_args(annotation) for kind in _alternatives(argument)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…'"
