"""The head of a classifier: the map from penultimate features to logits, verified against the model's own logits.

The last module of a network is not always the whole map. A BatchNorm may precede it (EfficientViT-MSRA), or two
heads may be averaged (distilled transformers). A head is offered only if it reproduces the model's logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.base.errors import InputError
from harness.contract.features import LinearHead
from harness.models.classes import Reordered, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.contract.features import Head
    from harness.contract.preprocessing import Preprocessing

TOLERANCE = 1e-4  # of the largest logit: the difference up to which two ways to the logits count as equal
_PROBES = 2  # random images on which they are compared


def probe(preprocessing: Preprocessing, device: str) -> Tensor:
    """Make random normalised images, always the same, (2, channels, H, W)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (_PROBES, *preprocessing.input_size), dtype=torch.uint8, generator=generator
    )
    return preprocessing.normalise(images.to(device))


def verified_head(classifier: Any, images: Tensor) -> Head | None:
    """Return the head that reproduces the classifier's logits on some images; None if no single map does.

    A linear layer, a 1×1 convolution, and either with a BatchNorm in front become one LinearHead. Raises InputError if
    the model's own forward gives other logits than forward_head, since features would not be those of the model.
    """
    if isinstance(classifier, Reordered):
        return _reordered(verified_head(classifier.network, images), classifier)
    with torch.no_grad():
        maps = classifier.eval().forward_features(images)
        logits, penultimate = classifier.forward_head(maps), classifier.forward_head(maps, pre_logits=True)
        _require_own(classifier, images, logits)
        if penultimate.ndim != 2:  # extraction reports it
            return None
        for candidate in _candidates(classifier):
            if _reproduces(candidate, penultimate, logits):
                return candidate
    return None


def require_repeatable(classifier: Any, images: Tensor, *, pre_logits: bool) -> None:
    """Raise InputError for a model that gives other outputs for the same images: no number of it could be trusted."""
    if not _equal(*(_outputs(classifier, images, pre_logits=pre_logits) for _ in range(2))):
        raise InputError(
            "it gives other outputs when it forwards the same images again. Make its evaluation mode deterministic: "
            "no dropout, no random draws"
        )


def depends_on_batch(classifier: Any, images: Tensor, *, pre_logits: bool) -> bool:
    """Return whether a model's outputs for an image change if the others in its batch are black."""
    others = torch.full_like(images[1:], float(images.min()))
    one, other = (
        _outputs(classifier, batch, pre_logits=pre_logits)[:1]
        for batch in (images, torch.cat([images[:1], others]))
    )
    return not _equal(one, other)


def _outputs(classifier: Any, images: Tensor, *, pre_logits: bool) -> Tensor:
    with torch.no_grad():
        maps = classifier.eval().forward_features(images)
        found: Tensor = classifier.forward_head(maps, pre_logits=pre_logits)
    return found


def last_module(classifier: Any) -> nn.Module:
    """Return the module that computes the logits last; the whole model if there is no single one."""
    found = classifier.get_classifier()
    is_single = isinstance(found, nn.Module) and not isinstance(found, nn.Identity | nn.ModuleList)
    module: nn.Module = found if is_single else classifier
    return module


def _require_own(classifier: Any, images: Tensor, logits: Tensor) -> None:
    if getattr(type(classifier), "forward", nn.Module.forward) is nn.Module.forward:
        return  # the model has no forward of its own
    own = classifier(images)
    if isinstance(own, torch.Tensor) and not _equal(own, logits):
        raise InputError(
            f"the model's forward gives other logits (shape {tuple(own.shape)}) than forward_head (shape "
            f"{tuple(logits.shape)}), so its features would be wrong. Make both agree"
        )


def _candidates(classifier: Any) -> Iterator[Head]:
    last = last_module(classifier)
    if last is classifier:
        return
    linear = _as_linear(last)
    if linear is not None:
        yield linear
        for parent in classifier.modules():
            children = list(parent.children())
            if any(child is last for child in children):
                yield from (_folded(child, linear) for child in children if isinstance(child, _BatchNorm))
    yield last


def _reproduces(candidate: Head, penultimate: Tensor, logits: Tensor) -> bool:
    try:
        return _equal(candidate(penultimate), logits)
    except Exception:  # a module that reads feature maps, such as pooling and a linear layer in one
        return False


@dataclass(frozen=True, eq=False)
class _InOrder:
    """A head whose outputs are put in another order. It holds no more than that, since each plugin gets a copy."""

    head: Head
    order: Tensor  # (K,)

    def __call__(self, penultimate: Tensor) -> Tensor:
        return in_order(self.head(penultimate), self.order)


def _reordered(head: Head | None, classifier: Reordered) -> Head | None:
    if not isinstance(head, LinearHead):
        return None if head is None else _InOrder(head, classifier.order)
    weight, bias = (classifier.in_order(values.unsqueeze(0))[0] for values in (head.weight, head.bias))
    return LinearHead(weight, bias)


def _as_linear(module: nn.Module) -> LinearHead | None:
    is_convolution = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    if not (is_convolution or isinstance(module, nn.Linear)):
        return None
    layer: Any = module
    weight: Tensor = layer.weight.detach().flatten(1)  # (C, D)
    return LinearHead(weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach())


def _folded(norm: _BatchNorm, head: LinearHead) -> LinearHead:
    """Fold the affine map of a BatchNorm in evaluation mode into the linear map behind it."""
    layer: Any = norm  # whose buffers torch types as modules
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None or len(mean) != head.weight.shape[1]:
        return head
    scale = (variance + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight.detach())
    shift = (0 if layer.bias is None else layer.bias.detach()) - mean * scale
    return LinearHead(head.weight * scale, head.bias + head.weight @ shift)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two sets of logits are equal to the tolerance."""
    if one.shape != other.shape:
        return False
    largest = float(other.nan_to_num(0, 0, 0).abs().amax())
    return torch.allclose(one, other, rtol=0, atol=TOLERANCE * max(largest, 1e-12), equal_nan=True)
