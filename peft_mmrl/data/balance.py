"""Classes of which there are many more pictures than of others: saying so, and letting them count the same."""

from __future__ import annotations

from collections.abc import Mapping

from .wording import first_few


UNEVEN = 4  # times as many pictures of one class as of another


def balanced_weights(pictures_per_class: Mapping[str, int]) -> list[float]:
    """Weights with which classes count the same, however many pictures they have: N / (C n) for n of N pictures.

    As `class_weight` of [`~peft_mmrl.MMRLConfig`] they hold in both cross entropies, whose mean over all pictures is
    then the mean over classes of each class's own, and in the decision's probe. Their mean over pictures is 1, so that
    the cross entropies keep their weight against the regularisation. scikit-learn calls them "balanced".

    Args:
        pictures_per_class: training pictures of each of C classes, in the order of the trained classes.

    Raises:
        ValueError: a class without pictures.
    """
    missing = [name for name, count in pictures_per_class.items() if count < 1]
    if missing or not pictures_per_class:
        raise ValueError(
            f"Classes can be balanced where each has pictures, but there are none of: {first_few(missing)}."
        )
    each = sum(pictures_per_class.values()) / len(pictures_per_class)
    return [each / count for count in pictures_per_class.values()]


def note_uneven(pictures_per_class: Mapping[str, int]) -> list[str]:
    """A note where some classes have many more pictures to train on than others."""
    often, seldom = (choose(pictures_per_class, key=pictures_per_class.get) for choose in (max, min))
    most, fewest = pictures_per_class[often], pictures_per_class[seldom]
    if most < UNEVEN * fewest:
        return []
    return [
        f"classes are uneven: {most} pictures of {often}, {fewest} of {seldom}. A rare class can vanish while "
        f"accuracy rises: see recall by class, too; --balance lets each class count the same"
    ]
