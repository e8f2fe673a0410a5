"""The ER terms: the authors' values, published and exact; memory that is linear in the number of vectors; refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import harness
from harness_plugins.probes import er
from harness_plugins.probes.er import (
    REDUCTIONS,
    discrete_entropy,
    discrete_reconstruction,
    vmf_entropy,
    vmf_reconstruction,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "er.json").read_text())
SPHERE = [case for case in GOLDEN["entropy"] if case["support"] == "sphere"]
DISCRETE = [case for case in GOLDEN["entropy"] if case["support"] == "discrete"]


def made(expression, case):
    """Build the input as the golden file says."""
    names = {"i": np.arange(case["n"])[:, None], "j": np.arange(case["d"])[None, :], "np": np}
    rows = eval(expression, names) + 0.0 * names["i"] + 0.0 * names["j"]
    if case["post"] == "l2":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    else:
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows = rows / rows.sum(axis=1, keepdims=True)
    return torch.tensor(rows, dtype=getattr(torch, case["dtype"]))


def tolerance(case):
    return {"rel": 0, "abs": 1e-9} if case["dtype"] == "float64" else {"rel": 3e-7, "abs": 3e-7}


@pytest.mark.parametrize("case", SPHERE)
def test_entropies_with_the_floor_are_those_of_the_authors_code(case):
    z = made(case["input"], case).requires_grad_()
    found = vmf_entropy(z, kappa=case["kappa"], reduction=case["reduction"], published_floor=True)
    assert found.item() == pytest.approx(case["out"], **tolerance(case))
    assert found.dtype == z.dtype
    found.backward()
    if "grad_row0" in case:
        assert z.grad[0].tolist() == pytest.approx(case["grad_row0"], abs=1e-9)
        assert z.grad.norm().item() == pytest.approx(case["grad_fro"], abs=1e-9)


@pytest.mark.parametrize("case", [case for case in SPHERE if case["out_with_exact_logI"] is not None])
def test_entropies_are_exact_without_it(case):
    found = vmf_entropy(made(case["input"], case), kappa=case["kappa"], reduction=case["reduction"])
    assert found.item() == pytest.approx(case["out_with_exact_logI"], **tolerance(case))


@pytest.mark.parametrize("case", SPHERE)
def test_the_floor_changes_the_normaliser_alone(case):
    z = made(case["input"], case)
    floored, exact = (
        vmf_entropy(z, kappa=case["kappa"], reduction=case["reduction"], published_floor=floor).item()
        for floor in (True, False)
    )
    assert floored - exact == pytest.approx(
        case["logI_used_by_original"] - case["logI_exact_mpmath"],
        abs=1e-9 if z.dtype == torch.float64 else 1e-5,
    )


@pytest.mark.parametrize("case", DISCRETE)
def test_discrete_entropies_are_those_of_the_authors_code(case):
    found = discrete_entropy(made(case["input"], case), reduction=case["reduction"])
    assert found.item() == pytest.approx(case["out"], **tolerance(case))


@pytest.mark.parametrize("case", GOLDEN["reconstruction"])
def test_reconstructions_are_those_of_the_authors_code(case):
    first, second = (made(case[name], case) for name in ("input1", "input2"))
    if case["support"] == "sphere":
        found = vmf_reconstruction(first, second, kappa=case["kappa"], published_floor=True)
    else:
        found = discrete_reconstruction(first, second)
        assert discrete_reconstruction(second, first).item() == pytest.approx(
            case["out_swapped"], **tolerance(case)
        )
    assert found.item() == pytest.approx(case["out"], **tolerance(case))


def published(seed):
    """Repeat the statements of the authors' script from a seed, in their order (GOLDEN["main_order"])."""
    draw = torch.Generator().manual_seed(seed)
    size = (1000, 1000)

    def uniform():
        return torch.rand(size, generator=draw)

    def normal():
        return torch.randn(size, generator=draw)

    z = functional.normalize(normal(), dim=1)
    values = [
        vmf_entropy(z, reduction=reduction, published_floor=True) for reduction in ("expectation", "average")
    ]
    values += [
        discrete_entropy(uniform().softmax(dim=1)),
        discrete_entropy((1000 * uniform()).softmax(dim=1)),
    ]
    values.append(discrete_entropy(functional.one_hot(torch.zeros(1000, dtype=torch.int64), 1000).float()))
    base = uniform()
    views = [functional.normalize(base + normal(), dim=1) for _ in range(2)]
    values.append(vmf_reconstruction(*views, published_floor=True))
    base = uniform()
    values.append(discrete_reconstruction(*((10 * base + normal()).softmax(dim=1) for _ in range(2))))
    return [value.item() for value in values]


# Theirs are float32, in which numbers near -249 lie 1.5e-5 apart; the plug-in entropy is a weighted sum of a thousand.
# Numbers near 7 lie 4.8e-7 apart, and another CPU adds them in another order.
ROUNDING = {0: 1e-4, 1: 2e-5, 5: 2e-5, 6: 1e-6}
OTHERS = 5e-7


@pytest.mark.parametrize("seed", [0, 42])
def test_the_authors_script_gives_their_numbers(seed):
    for column, (found, expected) in enumerate(
        zip(published(seed), GOLDEN["main_seeded"][str(seed)], strict=True)
    ):
        assert found == pytest.approx(expected, abs=ROUNDING.get(column, OTHERS)), column


def test_published_numbers_are_reached_as_distributions():
    found = np.array([published(seed) for seed in range(8)])
    means, deviations = found.mean(axis=0), found.std(axis=0, ddof=1)
    # Mean over 60 seeds ± four of its standard deviations over the root of 8, plus float32's rounding.
    for column, mean, deviation in (
        (0, -249.308411, 3e-5),
        (1, -249.308350, 2e-5),
        (2, 6.907614, 2e-6),
        (3, 6.6874, 0.01),
        (5, -248.6686, 0.0095),
        (6, 6.1044, 0.0030),
    ):
        assert abs(means[column] - mean) <= 4 * deviation / math.sqrt(8) + ROUNDING.get(column, OTHERS)
        assert deviation / 3 < deviations[column] < 3 * deviation  # chi-square, 7 degrees: one in 10,000


def test_published_numbers_are_the_floors_and_the_exact_ones_are_not():
    z = functional.normalize(
        torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)), dim=1
    ).double()
    assert vmf_entropy(functional.normalize(z)).item() == pytest.approx(-2035.15, abs=0.01)


def unblocked(z, kappa, reduction):
    logs = (kappa * z @ z.T).logsumexp(dim=1) - er.log_normaliser(z.shape[1], kappa) - math.log(len(z))
    return -logs.mean() if reduction == "average" else -(logs.softmax(dim=0) * logs).sum()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kappa", [0.5, 10.0, 700.0])
@pytest.mark.parametrize("count", [1, 7, 8, 23])
def test_tiles_add_up_to_the_whole(monkeypatch, count, kappa, reduction):
    monkeypatch.setattr(er, "TILE", 8)
    draw = torch.Generator().manual_seed(count)
    z = functional.normalize(torch.randn(count, 5, dtype=torch.float64, generator=draw)).requires_grad_()
    found, expected = vmf_entropy(z, kappa=kappa, reduction=reduction), unblocked(z, kappa, reduction)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, z)[0] for value in (found, expected)]
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_those_of_finite_differences(monkeypatch, reduction):
    monkeypatch.setattr(er, "TILE", 4)
    raw = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: vmf_entropy(functional.normalize(x), kappa=3.0, reduction=reduction), raw
    )


def test_no_tensor_has_as_many_entries_as_pairs(monkeypatch):
    monkeypatch.setattr(er, "TILE", 64)
    largest = 0
    real = er._tile

    def watched(*given):
        nonlocal largest
        tile = real(*given)
        largest = max(largest, tile.numel())
        return tile

    monkeypatch.setattr(er, "_tile", watched)
    z = functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    vmf_entropy(z).backward()
    assert largest == 64 * 64


def test_half_precision_and_autocast_are_computed_in_full():
    z = functional.normalize(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = vmf_entropy(z), vmf_reconstruction(z, z.flip(0))
    assert inside == (vmf_entropy(z), vmf_reconstruction(z, z.flip(0)))
    z.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,) = torch.autograd.grad(vmf_entropy(z), z)
    assert torch.equal(inside, torch.autograd.grad(vmf_entropy(z), z)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dimension", [2, 8, 64])
def test_units_in_half_precision_are_units(dtype, dimension):
    z = functional.normalize(torch.randn(200, dimension, generator=torch.Generator().manual_seed(0)))
    found = vmf_entropy(functional.normalize(z.to(dtype)))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(vmf_entropy(z).item(), abs=0.02)
    p = (3 * z).softmax(dim=1)
    assert discrete_entropy(p.to(dtype)).item() == pytest.approx(discrete_entropy(p).item(), abs=0.02)


def test_limits():
    one = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    normaliser = er.log_normaliser(2, 10.0)
    assert vmf_entropy(one).item() == pytest.approx(normaliser - 10)  # a kernel at its own centre
    assert vmf_entropy(one.repeat(5, 1)).item() == pytest.approx(normaliser - 10)  # duplicates
    assert vmf_reconstruction(one, -one).item() == pytest.approx(normaliser + 10)
    assert discrete_entropy(torch.full((3, 4), 0.25)).item() == pytest.approx(math.log(4), abs=1e-6)


def test_a_kernel_density_integrates_to_one():
    angles = torch.arange(3600, dtype=torch.float64) * (2 * math.pi / 3600)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    for kappa in (0.1, 10.0, 500.0):
        density = (kappa * circle[:, 0] - er.log_normaliser(2, kappa)).exp()
        assert (density.sum() * 2 * math.pi / 3600).item() == pytest.approx(1)


UNIT = torch.eye(3)
BAD_VECTORS = [
    (torch.ones(3, 3), {}, "vector 0 has length 1.732, not 1. Divide by it: torch.nn.functional.normalize"),
    (torch.full((2, 3), math.nan), {}, "vector 0 has length nan, not 1"),
    (torch.zeros(2, 3), {}, "vector 0 has length 0, not 1"),
    (torch.ones(3), {}, r"vectors have shape \(3,\)"),
    (torch.empty(0, 3), {}, r"vectors have shape \(0, 3\)"),
    (torch.ones(3, 1), {}, r"vectors have shape \(3, 1\)"),
    (UNIT, {"kappa": 0}, "kappa is 0. Give a number above 0"),
    (UNIT, {"kappa": -1.0}, "kappa is -1.0"),
    (UNIT, {"kappa": math.inf}, "kappa is inf"),
    (UNIT, {"kappa": 1e5}, r"kappa is 100000.0. Give a number above 0, up to 5e\+04 for torch.float32"),
    (2 * torch.eye(3, dtype=torch.int64), {}, "vector 0 has length 2, not 1"),
    (UNIT, {"reduction": "mean"}, "no reduction named 'mean'. Valid: average, expectation"),
    (UNIT, {"kappa": 2000.0, "published_floor": True}, "overflows under published_floor. Leave it off"),
]


@pytest.mark.parametrize(("z", "parameters", "message"), BAD_VECTORS)
def test_bad_vectors_are_one_line(z, parameters, message):
    with pytest.raises(harness.HarnessError, match=message):
        vmf_entropy(z, **parameters)


def test_bad_views_and_probabilities_are_one_line():
    with pytest.raises(harness.InputError, match=r"views have shapes \(3, 3\) and \(2, 3\)"):
        vmf_reconstruction(UNIT, UNIT[:2])
    with pytest.raises(harness.InputError, match="vector 2 has length 2"):
        vmf_reconstruction(UNIT, UNIT * torch.tensor([[1.0], [1.0], [2.0]]))
    with pytest.raises(harness.InputError, match="rows sum to 2 to 2. Give softmax outputs"):
        discrete_entropy(torch.ones(3, 2))
    with pytest.raises(harness.InputError, match="probabilities go down to -1"):
        discrete_entropy(torch.tensor([[-1.0, 2.0]]))
    with pytest.raises(harness.InputError, match="probabilities go down to nan"):
        discrete_entropy(torch.full((2, 2), math.nan))
    with pytest.raises(harness.InputError, match=r"shape \(2,\)"):
        discrete_entropy(torch.ones(2))
    with pytest.raises(harness.InputError, match="views have shapes"):
        discrete_reconstruction(UNIT, UNIT[:2])
