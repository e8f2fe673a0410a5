"""Temperature scaling (Guo et al., ICML 2017): one scalar, fitted on labelled validation data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness

if TYPE_CHECKING:
    from torch import Tensor

LEAST, MOST = 0.05, 20.0  # outside, the likelihood has no clear minimum


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Minimise the mean negative log-likelihood of softmax(z / T) over ln T by LBFGS; T within 0.05 to 20.

    Logits (N, C), labels (N,) in 0..C-1. Raises InputError for other labels, NaN, and no samples.
    """
    if not len(logits):
        raise harness.InputError("there are no validation samples to fit a temperature on. Give some")
    if bool(logits.isnan().any()):
        raise harness.InputError("the validation logits hold NaN, which have no likelihood. Repair the model")
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise harness.InputError(
            f"validation labels go from {int(labels.min())} to {int(labels.max())}, but logits have "
            f"{logits.shape[1]} classes. Give labels in 0..C-1"
        )
    scores, log_t = logits.double().detach(), torch.zeros(1, dtype=torch.float64, device=logits.device)
    log_t.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [log_t], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(scores / log_t.clamp(math.log(LEAST), math.log(MOST)).exp(), labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return min(max(math.exp(log_t.item()), LEAST), MOST)
