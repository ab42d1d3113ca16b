"""Lets `Trainer` see that an adapted CLIP takes `labels`.

Trainer decides what to keep of a batch, and whether a model has a loss, by the signature of the *class* of the base
model, not of the `PeftModel` around it. `CLIPModel.forward` does not name `labels`, so a label column would be
dropped. While an adapter is injected, the base model's class is a subclass of its own that names it.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from torch import nn


def name_labels_in_forward(model: nn.Module) -> None:
    """Give `model` a class whose `forward` names `labels`; nothing happens where it does already."""
    if "labels" not in inspect.signature(type(model).forward).parameters:
        model.__class__ = _with_labels(type(model))


def restore_forward(model: nn.Module) -> None:
    """Give `model` back the class that it was made from."""
    model.__class__ = getattr(type(model), "_plain_class", type(model))


@lru_cache
def _with_labels(plain_class: type[nn.Module]) -> type[nn.Module]:
    """Subclass of `plain_class`, under its name, whose `forward` names `labels` and refuses them.

    Losses come from the `PeftModel`; a CLIP that was adapted without one has none.
    """

    def forward(self: nn.Module, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        if labels is not None:
            raise ValueError(
                f"`labels`: {plain_class.__name__} computes no loss of its own. Wrap it with `get_peft_model` or "
                "`PeftModel.from_pretrained` and call that model."
            )
        return plain_class.forward(self, *args, **kwargs)

    def reduce_ex(self: nn.Module, protocol: int) -> tuple[Any, ...]:
        _, _, *state = plain_class.__reduce_ex__(self, protocol)
        return (_new_with_labels, (plain_class,), *state)

    signature = inspect.signature(plain_class.forward)
    parameters = list(signature.parameters.values())
    position = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    parameters.insert(position, inspect.Parameter("labels", inspect.Parameter.KEYWORD_ONLY, default=None))
    forward.__signature__ = signature.replace(parameters=parameters)
    forward.__doc__ = plain_class.forward.__doc__
    return type(
        plain_class.__name__,
        (plain_class,),
        {
            "__module__": plain_class.__module__,
            "__qualname__": plain_class.__qualname__,
            "__reduce_ex__": reduce_ex,
            "_plain_class": plain_class,
            "forward": forward,
        },
    )


def _new_with_labels(plain_class: type[nn.Module]) -> nn.Module:
    """Make an empty instance; pickling stores this function and the plain class, which can be found by name."""
    cls = _with_labels(plain_class)
    return cls.__new__(cls)
