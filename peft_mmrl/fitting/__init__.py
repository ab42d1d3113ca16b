"""Runs, from a user's pictures to an adapter with honest figures: what `peft_mmrl.fit` and `peft-mmrl train` do."""

from .folder import check_inputs
from .one_call import fit
from .options import FitOptions
from .run import Fitting


__all__ = ["FitOptions", "Fitting", "check_inputs", "fit"]
