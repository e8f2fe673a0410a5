"""Names of weights in the published code of the CIFAR networks, translated to the names here.

resnet-cifar: the code of the IsoMax papers, and Idelbayev's, from which it comes. densenet-bc: the code of the IsoMax
papers, and the older code with the same names. The last layer is called classifier, linear or fc.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    Tensors = Mapping[str, Tensor]

_HEAD = re.compile(r"(?:classifier|linear|fc)\.(\w+)")
_RESNET_STEM = {"conv1": "stages.stem.0", "bn1": "stages.stem.1"}
_RESNET_BLOCK = re.compile(r"layer([123])\.(\d+)\.(conv1|bn1|conv2|bn2)\.(\w+)")
_RESNET_LAYERS = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
_DENSE_LAYER = re.compile(r"block([123])\.layer\.(\d+)\.(bn1|conv1|bn2|conv2)\.(\w+)")
_DENSE_LAYERS = {"bn1": 0, "conv1": 2, "bn2": 4, "conv2": 6}
_TRANSITION = re.compile(r"trans([12])\.(bn1|conv1)\.(\w+)")
_TRANSITION_LENGTH = 5  # modules of a transition at the start of stages 2 and 3


def resnet_names(weights: Tensors) -> dict[str, Tensor]:
    """Rename the weights of a ResNet of 6n + 2 layers. Names that are not of the published code stay."""
    return {_resnet_name(key): value for key, value in weights.items()}


def densenet_names(weights: Tensors) -> dict[str, Tensor]:
    """Rename the weights of a DenseNet-BC of 6n + 4 layers. Names that are not of the published code stay."""
    last = f"stages.stage3.{_TRANSITION_LENGTH + _layers(weights)}"
    return {_densenet_name(key, last): value for key, value in weights.items()}


def _resnet_name(key: str) -> str:
    module, _, parameter = key.rpartition(".")
    if module in _RESNET_STEM:
        return f"{_RESNET_STEM[module]}.{parameter}"
    if found := _RESNET_BLOCK.fullmatch(key):
        stage, block, layer, parameter = found.groups()
        return f"stages.stage{stage}.{block}.residual.{_RESNET_LAYERS[layer]}.{parameter}"
    return _head_name(key)


def _densenet_name(key: str, last: str) -> str:
    module, _, parameter = key.rpartition(".")
    if module == "conv1":
        return f"stages.stem.0.{parameter}"
    if module == "bn1":
        return f"{last}.{parameter}"
    if found := _DENSE_LAYER.fullmatch(key):
        stage, number, layer, parameter = found.groups()
        place = int(number) + (0 if stage == "1" else _TRANSITION_LENGTH)
        return f"stages.stage{stage}.{place}.new_maps.{_DENSE_LAYERS[layer]}.{parameter}"
    if found := _TRANSITION.fullmatch(key):
        stage, layer, parameter = found.groups()
        return f"stages.stage{int(stage) + 1}.{_DENSE_LAYERS[layer]}.{parameter}"
    return _head_name(key)


def _head_name(key: str) -> str:
    """Name a parameter of the last layer, whatever the objective; the softmax head of the papers has `weights`."""
    found = _HEAD.fullmatch(key)
    if not found:
        return key
    (parameter,) = found.groups()
    return f"fc.{'weight' if parameter == 'weights' else parameter}"


def _layers(keys: Iterable[str]) -> int:
    """Count the layers of the last block."""
    return len({found[2] for key in keys if (found := _DENSE_LAYER.fullmatch(key)) and found[1] == "3"})
