"""Whether a classifier's outputs are in another order than the labels: the accuracy that the best renaming gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def renamed_accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Estimate the accuracy under the best one-to-one renaming of a classifier's outputs.

    The renaming is found on one half of the samples, every second one, by maximising the hits there (Kuhn, Naval
    Research Logistics 1955), and counted on the other half; then the halves change places. So a classifier that guesses
    gains nothing. An output that the renaming does not reach counts as a miss.

    Args:
        predicted: outputs, (N,), from 0.
        labels: classes, (N,), from 0.

    """
    _, outputs = np.unique(predicted, return_inverse=True)  # a network may have far more than occur
    halves = np.arange(len(labels)) % 2 == 0
    hits = 0
    for half in (halves, ~halves):
        renamed = _best_renaming(outputs[half], labels[half], int(outputs.max()) + 1)
        hits += int(np.sum(renamed[outputs[~half]] == labels[~half]))
    return hits / len(labels)


def _best_renaming(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], num_outputs: int
) -> NDArray[np.int64]:
    """Return the class of each output, (num_outputs,); -1 for an output that is given none."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((num_outputs, int(labels.max(initial=0)) + 1))
    np.add.at(counts, (predicted, labels), 1)
    outputs, classes = linear_sum_assignment(counts, maximize=True)
    renamed = np.full(num_outputs, -1, dtype=np.int64)
    found = counts[outputs, classes] > 0
    renamed[outputs[found]] = classes[found]
    return renamed
