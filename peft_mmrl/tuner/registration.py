"""The only place that knows how PEFT's and transformers' registries work.

PEFT has no entry points for methods from other packages: `register_peft_method` takes only names that are members of
the enum `PeftType`, and configs only task types that are members of `TaskType`. An enum that has members cannot be
subclassed, so the two members are added here, the way the enum machinery itself stores them. transformers' pipelines
keep a list of PEFT's model classes that is not open to others either.
"""

from __future__ import annotations

import enum

import peft
from peft import PeftType, TaskType
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method
from transformers.pipelines.base import SUPPORTED_PEFT_TASKS


PEFT_TYPE = "MMRL"
TASK_TYPE = "ZERO_SHOT_IMAGE_CLASSIFICATION"
PIPELINES = ("zero-shot-image-classification", "image-classification")


def _add_member(enum_cls: type[enum.Enum], name: str) -> None:
    """Add the string member `name` to an enum, unless it is there."""
    if name in enum_cls.__members__:
        return
    member = str.__new__(enum_cls, name)
    member._name_ = name
    member._value_ = name
    member._sort_order_ = len(enum_cls._member_names_)
    member.__objclass__ = enum_cls
    setattr(enum_cls, name, member)  # before the maps know it: afterwards the enum refuses to set it
    enum_cls._member_names_.append(name)
    enum_cls._member_map_[name] = member
    enum_cls._value2member_map_[name] = member


def extend_peft_enums() -> None:
    """Make `PeftType.MMRL` and `TaskType.ZERO_SHOT_IMAGE_CLASSIFICATION` members of PEFT's enums."""
    _add_member(PeftType, PEFT_TYPE)
    _add_member(TaskType, TASK_TYPE)


def register(config_cls: type, tuner_cls: type, peft_model_cls: type) -> None:
    """Register the method with PEFT and transformers' pipelines; calling it again changes nothing.

    Args:
        config_cls: the `PeftConfig` subclass.
        tuner_cls: the `BaseTuner` subclass.
        peft_model_cls: the `PeftModel` subclass of our task type.

    Raises:
        ImportError: PEFT ships a method of this name itself.
    """
    extend_peft_enums()
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType(PEFT_TYPE))
    if known is not None and known.__module__ != config_cls.__module__:
        raise ImportError(
            f"PEFT {peft.__version__} has a method {PEFT_TYPE} of its own ({known.__module__}.{known.__qualname__}). "
            "peft_mmrl does not replace it: use PEFT's, or install an older PEFT to go on with peft_mmrl."
        )
    # A reloaded module has new classes, so what this package registered before makes room for them.
    for mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING):
        mapping.pop(PeftType(PEFT_TYPE), None)
    register_peft_method(name=PEFT_TYPE.lower(), config_cls=config_cls, model_cls=tuner_cls)
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING[TASK_TYPE] = peft_model_cls
    for pipeline in PIPELINES:
        supported = SUPPORTED_PEFT_TASKS.setdefault(pipeline, [])
        if peft_model_cls.__name__ not in supported:
            supported.append(peft_model_cls.__name__)
