"""The check of the ER authors' code: what it prints, and beside it the exact values.

    python -m harness_plugins.probes.er [--seed 0]

The inputs are drawn as their script draws them. Its own printed values come from an unseeded run.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.special import gammaln
from torch.nn import functional

from harness_plugins.entropy_reconstruction import entropy, reconstruction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness_plugins.entropy_reconstruction import Reduction

SIZE = 1000  # vectors and dimensions, or distributions and classes
WIDTH = 62


@dataclass(frozen=True)
class Line:
    """One value: as the authors' code computes it, in float32 and with its floor, and exact."""

    label: str
    published: float
    exact: float

    def __str__(self) -> str:
        return f"{self.label} {self.published}".ljust(WIDTH) + f"exact: {self.exact:.10g}"


def main() -> None:
    """Print the check of one seed."""
    parser = argparse.ArgumentParser(
        prog="python -m harness_plugins.probes.er",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs")
    sys.stdout.write("\n".join(text(parser.parse_args().seed)) + "\n")


def text(seed: int) -> Iterator[str]:
    """Compute the check line by line: sections, their values, and what is right."""
    found = checks(seed)
    for title, lines in found.items():
        yield title
        yield from map(str, lines)
    yield from verdict(found)


def checks(seed: int) -> dict[str, list[Line]]:
    """Compute both values of every line, by section. Inputs are drawn in the order of the authors' script."""
    draw = torch.Generator().manual_seed(seed)
    size = (SIZE, SIZE)

    def uniform() -> Tensor:
        return torch.rand(size, generator=draw)

    def normal() -> Tensor:
        return torch.randn(size, generator=draw)

    def two_views(base: Tensor) -> list[Tensor]:
        return [base + normal() for _ in range(2)]

    first = functional.one_hot(torch.zeros(SIZE, dtype=torch.int64), SIZE)
    return {
        "Continuous entropy": _on_the_sphere(normal()),
        "Discrete entropy": [
            Line("Max entropy", math.log(SIZE), math.log(SIZE)),
            _of_classes("Entropy on uniform sample:", uniform()),
            _of_classes("Entropy on uniform sample (high temp):", 1000 * uniform()),
            _of_classes("Entropy on one_hot vector:", 1000.0 * first),
        ],
        "Continuous reconstruction": [_of_directions(*two_views(uniform()))],
        "Discrete reconstruction": [_of_predictions(*two_views(10 * uniform()))],
    }


def verdict(found: dict[str, list[Line]]) -> Iterator[str]:
    """Say which values are right, by the largest entropy that there is on this sphere."""
    plug_in = found["Continuous entropy"][0]
    discrete = found["Discrete entropy"] + found["Discrete reconstruction"]
    off = max(abs(line.published - line.exact) for line in discrete)
    most = math.log(2) + SIZE / 2 * math.log(math.pi) - float(gammaln(SIZE / 2))
    yield (
        f"The exact values are right. The uniform distribution on this sphere has {most:.2f} nats, the logarithm of "
        f"its area, and none has more: {plug_in.exact:.2f} is possible, {plug_in.published:.2f} is not."
    )
    yield (
        "The authors' code adds 1e-7 to a Bessel function that is far smaller here, so its values on the sphere are "
        f"{plug_in.published - plug_in.exact:.2f} too high. Its floor of probabilities changes the discrete ones by at "
        f"most {off:.0e}."
    )


def _on_the_sphere(points: Tensor) -> list[Line]:
    units, exact_units = functional.normalize(points), functional.normalize(points.double())
    estimators: tuple[tuple[str, Reduction], ...] = (("plug-in", "expectation"), ("Joe's", "average"))
    return [
        Line(
            f"Entropy sphere {name} estimator:",
            entropy(units, reduction=reduction, published_floor=True).item(),
            entropy(exact_units, reduction=reduction).item(),
        )
        for name, reduction in estimators
    ]


def _of_classes(label: str, logits: Tensor) -> Line:
    published = entropy(logits.softmax(dim=1), support="discrete").item()
    return Line(label, published, torch.special.entr(logits.double().softmax(dim=1).mean(dim=0)).sum().item())


def _of_directions(first: Tensor, second: Tensor) -> Line:
    published = reconstruction(
        functional.normalize(first), functional.normalize(second), published_floor=True
    )
    exact = reconstruction(functional.normalize(first.double()), functional.normalize(second.double()))
    return Line("Reconstruction error:", published.item(), exact.item())


def _of_predictions(first: Tensor, second: Tensor) -> Line:
    published = reconstruction(first.softmax(dim=1), second.softmax(dim=1), support="discrete").item()
    logs = [view.double().log_softmax(dim=1) for view in (first, second)]
    crossed = logs[0].exp() * logs[1] + logs[1].exp() * logs[0]  # (N, C)
    return Line("Reconstruction error:", published, -crossed.sum(dim=1).mean().item() / 2)


if __name__ == "__main__":
    main()
