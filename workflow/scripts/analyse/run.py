"""The analysis stage: result tables in, analysis tables out."""

from pathlib import Path
from typing import Any

from sft_atlas.analyse import tables
from sft_atlas.analyse.correlations import correlations
from sft_atlas.analyse.effects import effects
from sft_atlas.analyse.factors import methods, seeds
from sft_atlas.analyse.layers import layer_correlations
from sft_atlas.analyse.options import AnalysisOptions
from sft_atlas.analyse.statistics import Bootstrap
from sft_atlas.files import write_json


def run(spec: dict[str, Any], root: Path) -> None:
    """Analyse a study's tables in place, and write which tables there are."""
    output = root / spec["output"]
    folder = output.with_name("tables")
    analyse(folder, folder, AnalysisOptions.model_validate(spec["identity"]["options"]))
    write_json(output, {"spec": spec["hash"], "tables": sorted(tables.OUTPUTS)})


def analyse(folder: Path, out: Path, options: AnalysisOptions) -> None:
    """Read the tables in `folder` and write each of tables.OUTPUTS to `out`, as Parquet and CSV.

    A table that is absent counts as empty, and an analysis without input writes its table without rows. The same tables
    and options give the same bytes. Raises tables.TableError for a table that breaks its schema.
    """
    gains = tables.read(folder, "gains")
    predictors = tables.read(folder, "predictors")
    layers = tables.read(folder, "layers")
    bootstrap = Bootstrap(options.bootstrap_draws, options.seed, options.confidence)
    results = {
        "effects": effects(gains, bootstrap),
        "correlations": correlations(gains, predictors, options),
        "layer_correlations": layer_correlations(layers, gains, options),
        "methods": methods(gains, bootstrap),
        "seeds": seeds(gains, bootstrap),
    }
    for name, frame in results.items():
        tables.write(frame, out, name)
