"""What `evaluate` asks every module for."""

from __future__ import annotations

import inspect

import datasets
import evaluate


# As int64, `evaluate` would cut 1.5 to 1 before anyone could object.
LABEL = datasets.Value("float64")
SCORES_ROW = datasets.List(datasets.Value("float64"))


def metric_info(
    metric: evaluate.Metric, citation: str = "", **features: datasets.features.features.FeatureType
) -> evaluate.MetricInfo:
    """A module's description, from its docstrings.

    Args:
        metric: the module.
        citation: where the measure comes from, as BibTeX.
        features: the kind of each input of a picture.
    """
    return evaluate.MetricInfo(
        description=inspect.getdoc(type(metric)),
        citation=citation,
        inputs_description=inspect.getdoc(metric._compute),
        features=datasets.Features(features),
    )
