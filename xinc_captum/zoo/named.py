"""The classifiers by name."""

from collections.abc import Callable

from .classifiers import Classifier
from .efficientnet import efficientnet_lite0, efficientnet_lite1
from .squeezenet import squeezenet1_1

CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "squeezenet1_1": squeezenet1_1,
}


def classifier(name: str) -> Classifier:
    """A trained ImageNet classifier.

    Args:
        name: a key of ``CLASSIFIERS``; dashes and capitals do not matter.

    Raises:
        ValueError: no classifier has that name.
        AssetError: the package with its weights is missing, or holds another file.
    """
    key = name.strip().lower().replace("-", "_")
    if key not in CLASSIFIERS:
        raise ValueError(f"{name!r} is no classifier of the zoo; wanted one of {', '.join(CLASSIFIERS)}.")
    return CLASSIFIERS[key]()
