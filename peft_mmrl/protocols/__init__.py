"""The field's protocols: base-to-new, few-shot, cross-data-set with domain generalisation."""

from .arguments import load_data, make_parser, plan_runs
from .report import report
from .rows import published_scores
from .runs import Run, complete
from .tasks import base_new_classes, base_to_new, cross_dataset, few_shot


__all__ = [
    "Run",
    "base_new_classes",
    "base_to_new",
    "complete",
    "cross_dataset",
    "few_shot",
    "load_data",
    "make_parser",
    "plan_runs",
    "published_scores",
    "report",
]
