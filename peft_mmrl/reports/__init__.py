"""Reports of a run: a folder with numbers, figures and a page that people read who are no engineers."""

from .results import by_change, compute_metrics, rungs_in
from .verdict import summary, training_added
from .writing import write_report


__all__ = ["by_change", "compute_metrics", "rungs_in", "summary", "training_added", "write_report"]
