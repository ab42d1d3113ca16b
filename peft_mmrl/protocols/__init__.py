"""The field's protocols: base-to-new, few-shot, cross-data-set with domain generalisation."""

from .comparison import report
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
    "published_scores",
    "report",
]
