"""The base model's config as Trainer and pipelines should see it on an adapted model."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformers import PreTrainedConfig


OWN_FIELDS = ("id2label", "label2id", "num_labels", "keys_to_ignore_at_inference")


def view_of(base: PreTrainedConfig, **own: Any) -> PreTrainedConfig:
    """A view of a config with other values of some fields. What is written to it goes to the base.

    transformers finds what belongs to a config by the name of its class, so the view's class has the same.

    Args:
        base: the config.
        own: the fields that differ, of `OWN_FIELDS`.
    """
    cls = _view_class(type(base))
    view = cls.__new__(cls)
    view.__dict__.update({**base.__dict__, **own})
    object.__setattr__(view, "_base", base)
    return view


@lru_cache
def _view_class(plain_class: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """Subclass of `plain_class`, under its name, that writes through. Copies and pickles are of the plain class."""

    def set_attribute(self: PreTrainedConfig, name: str, value: Any) -> None:
        base = getattr(self, "_base", None)
        if base is not None:
            if name in OWN_FIELDS:
                raise ValueError(
                    f"`config.{name}` cannot be set: it follows from the bound classes, see `set_classes`."
                )
            setattr(base, name, value)
        plain_class.__setattr__(self, name, value)

    def reduce_ex(self: PreTrainedConfig, protocol: int) -> tuple[Any, ...]:
        return object.__new__, (plain_class,), dict(self.__dict__)

    content = {
        "__slots__": ("_base",),  # beside `__dict__`, which is what is compared, printed and saved
        "__module__": plain_class.__module__,
        "__qualname__": plain_class.__qualname__,
        "__setattr__": set_attribute,
        "__reduce_ex__": reduce_ex,
    }
    return type(plain_class)(plain_class.__name__, (plain_class,), content)
