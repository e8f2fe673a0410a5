import math

import mpmath
import pytest
import torch
from scipy.special import ive

from harness_plugins.probes.bessel import log_bessel
from harness_plugins.probes.er import vmf_entropy

DIMENSIONS = (2, 3, 4, 8, 16, 33, 64, 65, 128, 512, 1000, 2048, 4096)
KAPPAS = (0.1, 1.0, 10.0, 100.0, 1000.0, 5000.0)


def unit_vectors(count, dimension):
    vectors = torch.randn(
        count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(dimension)
    )
    return torch.nn.functional.normalize(vectors)


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_entropy_is_that_of_arbitrary_precision(dimension, kappa):
    z = unit_vectors(6, dimension).requires_grad_()
    with mpmath.workdps(40):
        order = mpmath.mpf(dimension) / 2 - 1
        bessel = mpmath.log(mpmath.besseli(order, kappa))
        normaliser = (
            -order * mpmath.log(kappa) + mpmath.mpf(dimension) / 2 * mpmath.log(2 * mpmath.pi) + bessel
        )
        rows = [[mpmath.mpf(value) for value in row] for row in z.tolist()]
        sums = [mpmath.fsum(mpmath.exp(kappa * mpmath.fdot(a, b)) for b in rows) for a in rows]
        logs = [mpmath.log(total) - normaliser - mpmath.log(len(rows)) for total in sums]
        weights = [mpmath.exp(value) for value in logs]
        expected = {
            "average": -mpmath.fsum(logs) / len(logs),
            "expectation": -mpmath.fsum(w * v for w, v in zip(weights, logs, strict=True))
            / mpmath.fsum(weights),
        }
        bounds = {name: 1e-12 * float(abs(h) + kappa + abs(bessel)) for name, h in expected.items()}
        assert abs(log_bessel(float(order), kappa) - float(bessel)) <= 1e-12 * (kappa + abs(float(bessel)))
    for reduction, value in expected.items():
        found = vmf_entropy(z, kappa=kappa, reduction=reduction)
        assert abs(found.item() - float(value)) <= bounds[reduction]
        (gradient,) = torch.autograd.grad(found, z)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("order", [0.0, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("kappa", [0.01, 0.5, 5.0, 300.0])
def test_log_bessel_is_scipys_where_that_does_not_underflow(order, kappa):
    assert log_bessel(order, kappa) == pytest.approx(
        math.log(ive(order, kappa)) + kappa, rel=1e-11, abs=1e-12
    )
