"""IsoMax and IsoMax+ for training loops of your own: `from harness_plugins.losses import IsoMaxPlusHead, isomax_loss`.

The names of the authors' code are here as well, with its signatures: a head is the *first part* of a loss, the
criterion its *second part* (Macêdo et al., IJCNN 2021; Macêdo & Ludermir, arXiv 2105.14399).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import nn

import harness
from harness_plugins.objectives.isomax import IsoMax, IsoMaxHead, IsoMaxPlusHead, isomax_loss

if TYPE_CHECKING:
    from torch import Tensor

    Debugged = tuple[Tensor, float, Tensor, Tensor]

__all__ = [
    "IsoMaxHead",
    "IsoMaxLossFirstPart",
    "IsoMaxLossSecondPart",
    "IsoMaxPlusHead",
    "IsoMaxPlusLossFirstPart",
    "IsoMaxPlusLossSecondPart",
    "isomax_loss",
]


class IsoMaxLossFirstPart(IsoMaxHead):
    """IsoMaxHead under the name and the signature of the authors' code: logits (N, C) are negative distances."""

    def __init__(self, num_features: int, num_classes: int, temperature: float = 1.0) -> None:
        super().__init__(num_features, num_classes, temperature=temperature)


class IsoMaxPlusLossFirstPart(IsoMaxPlusHead):
    """IsoMaxPlusHead under the name and the signature of the authors' code: logits (N, C) are negative distances."""

    def __init__(self, num_features: int, num_classes: int, temperature: float = 1.0) -> None:
        super().__init__(num_features, num_classes, temperature=temperature)


class IsoMaxLossSecondPart(nn.Module):
    """The criterion: mean cross-entropy of `entropic_scale` × logits (N, C) for classes (N,).

    It equals the authors' code wherever that is finite. Where a probability underflows, theirs is infinite, with
    gradients that are not numbers; this one is finite.
    """

    def __init__(self, entropic_scale: float = 10.0) -> None:
        super().__init__()
        if isinstance(entropic_scale, nn.Module):
            raise harness.InputError(
                f"{type(self).__name__} is given a {type(entropic_scale).__name__}. Leave the classifier out: only "
                "early versions of the authors' code took it"
            )
        self.entropic_scale = IsoMax(entropic_scale).entropic_scale

    @overload
    def forward(self, logits: Tensor, targets: Tensor, debug: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, logits: Tensor, targets: Tensor, debug: Literal[True]) -> Debugged: ...

    def forward(self, logits: Tensor, targets: Tensor, debug: bool = False) -> Tensor | Debugged:
        """Return the loss; with `debug`, as in the authors' code, also 1.0 and the distances behind it.

        The distances are to the prototype of the own class, (N,), and to the others, (N (C - 1),) by sample.
        """
        loss = isomax_loss(logits, targets, self.entropic_scale)
        if not debug:
            return loss
        is_own = torch.zeros_like(logits, dtype=torch.bool).scatter(1, targets[:, None], True)  # (N, C)
        return loss, 1.0, -logits[is_own], -logits[~is_own]

    def extra_repr(self) -> str:
        """Return the parameter."""
        return f"entropic_scale={self.entropic_scale}"


class IsoMaxPlusLossSecondPart(IsoMaxLossSecondPart):
    """The criterion of IsoMax+, which is that of IsoMax."""
