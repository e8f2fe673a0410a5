"""Every rival estimator beside an oracle in NumPy, from its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar

import harness
from harness_plugins.estimators.confidence import AverageConfidence, DifferenceOfConfidences
from harness_plugins.estimators.disagreement import Aetta, Agreement
from harness_plugins.estimators.norms import MaNo, NuclearNorm
from harness_plugins.estimators.temperature import fit_temperature
from harness_plugins.estimators.thresholds import ThresholdedConfidence
from harness_plugins.estimators.transport import OptimalTransport, matched_probabilities

CLASSES = 4


def drawn(
    seed: int, count: int = 60, sharp: float = 2.0, classes: int = CLASSES
) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits (N, C) and labels (N,) that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    logits = sharp * rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    return logits, labels


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def fit_data(seed: int = 0) -> harness.FitData:
    logits, labels = drawn(seed, 80)
    features = harness.Features(logits=torch.from_numpy(logits), labels=torch.from_numpy(labels))
    return harness.FitData(validation=harness.FeatureSet.of(features, chunk_size=17))


def target(logits: np.ndarray, peer: np.ndarray | None = None, **fields: np.ndarray) -> harness.Unlabelled:
    def features(z: np.ndarray) -> harness.FeatureSet:
        tensors: dict[str, Any] = {"logits": z, **fields}
        return harness.FeatureSet.of(
            harness.Features(**{name: torch.from_numpy(value) for name, value in tensors.items()}),
            chunk_size=13,
        )

    def nothing(_: object) -> torch.Tensor:
        raise AssertionError("no image is wanted")

    others = features(peer) if peer is not None else None
    return harness.Unlabelled(features(logits), batch=nothing, model=lambda: None, peer=others, seed=3)


def temperature_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    def loss(log_t: float) -> float:
        return float(-np.log(softmax(logits / np.exp(log_t))[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x))


def known() -> tuple[np.ndarray, np.ndarray]:
    """Return the validation data's probabilities after temperature scaling, and their labels."""
    logits, labels = drawn(0, 80)
    return softmax(logits / temperature_by_hand(logits, labels)), labels


def scaled(logits: np.ndarray) -> np.ndarray:
    return softmax(logits / temperature_by_hand(*drawn(0, 80)))


def test_the_temperature_is_the_likeliest() -> None:
    logits, labels = drawn(0, 80)
    found = fit_temperature(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found == pytest.approx(temperature_by_hand(logits, labels), rel=1e-5)
    assert fit_temperature(torch.from_numpy(3 * logits), torch.from_numpy(labels)) == pytest.approx(3 * found)


def test_two_classes_by_hand_have_the_temperature_that_fits_their_share() -> None:
    """Logits 2 and 0, right in three of four: 1/(1 + e^(-2/T)) = 3/4, so T = 2 / ln 3."""
    logits, labels = torch.tensor([[2.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(2 / np.log(3), rel=1e-6)


def test_perfect_data_have_the_lowest_temperature() -> None:
    assert fit_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(0.05)


def test_confidence_and_its_difference() -> None:
    logits, _ = drawn(1)
    p, labels = known()
    mean = scaled(logits).max(axis=1).mean()
    found = AverageConfidence().fit(fit_data()).estimate(target(logits))
    assert found.accuracy == found.score == pytest.approx(mean, rel=1e-5)
    offset = np.mean(p.argmax(axis=1) == labels) - p.max(axis=1).mean()
    moved = DifferenceOfConfidences().fit(fit_data()).estimate(target(logits))
    assert moved.accuracy == pytest.approx(mean + offset, rel=1e-5)
    assert moved.lo is not None
    assert moved.hi is not None
    assert moved.lo < mean + offset < moved.hi


@pytest.mark.parametrize("score", ["confidence", "entropy"])
def test_the_threshold_leaves_as_many_below_as_are_wrong(score: Any) -> None:
    def scores(p: np.ndarray) -> np.ndarray:
        return p.max(axis=1) if score == "confidence" else (p * np.log(p)).sum(axis=1)

    p, labels = known()
    errors = int((p.argmax(axis=1) != labels).sum())
    threshold = np.sort(scores(p))[errors]
    assert (scores(p) < threshold).sum() == errors
    logits, _ = drawn(2)
    found = ThresholdedConfidence(score).fit(fit_data()).estimate(target(logits))
    assert found.accuracy == pytest.approx(np.mean(scores(scaled(logits)) >= threshold))


def transported(p: np.ndarray, capacities: np.ndarray) -> float:
    """Solve the transport as a linear programme: the largest mean of p_y over couplings."""
    count, classes = p.shape
    equal = [np.kron(np.eye(count)[i], np.ones(classes)) for i in range(count)]
    equal += [np.kron(np.ones(count), np.eye(classes)[c]) for c in range(classes)]
    solved = linprog(-p.ravel(), A_eq=np.array(equal), b_eq=np.concatenate([np.ones(count), capacities]))
    return float(-solved.fun / count)


@pytest.mark.parametrize("seed", range(20))
def test_the_match_is_an_optimal_transport(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(4, 12)), int(rng.integers(2, 5))
    p = softmax(2 * rng.normal(size=(count, classes)))
    capacities = rng.multinomial(count, np.full(classes, 1 / classes))
    found = matched_probabilities(p, capacities / count)
    assert found.mean() == pytest.approx(transported(p, capacities), abs=1e-9)
    distance = 1 - found.mean()  # ½ · L1 of a one-hot and p is 1 - p_y
    l1 = np.abs(np.eye(classes)[None] - p[:, None]).sum(axis=2) / 2  # (N, C)
    equal = [np.kron(np.eye(count)[i], np.ones(classes)) for i in range(count)]
    equal += [np.kron(np.ones(count), np.eye(classes)[c]) for c in range(classes)]
    solved = linprog(l1.ravel(), A_eq=np.array(equal), b_eq=np.concatenate([np.ones(count), capacities]))
    assert distance == pytest.approx(solved.fun / count, abs=1e-9)


def test_capacities_are_rounded_by_the_largest_remainders() -> None:
    p = np.full((10, 3), 1 / 3)
    assert len(matched_probabilities(p, np.array([0.55, 0.25, 0.2]))) == 10


@pytest.mark.parametrize("thresholded", [False, True])
def test_transport_estimates(thresholded: bool) -> None:
    p, labels = known()
    marginal = np.bincount(labels, minlength=CLASSES) / len(labels)
    logits, _ = drawn(3)
    matched = matched_probabilities(scaled(logits), marginal)
    expected = matched.mean()
    if thresholded:
        on_id = np.sort(matched_probabilities(p, marginal))
        expected = np.mean(matched >= on_id[int((p.argmax(axis=1) != labels).sum())])
    found = OptimalTransport(thresholded).fit(fit_data()).estimate(target(logits))
    assert found.accuracy == pytest.approx(expected, rel=1e-5)


def test_beyond_its_limit_a_transport_is_of_as_many_images() -> None:
    logits, _ = drawn(4, 500)
    whole = OptimalTransport().fit(fit_data()).estimate(target(logits)).score
    part = OptimalTransport(limit=200).fit(fit_data()).estimate(target(logits)).score
    assert part != whole
    assert part == pytest.approx(whole, abs=0.05)


def test_the_nuclear_norm() -> None:
    logits, _ = drawn(5)
    p = softmax(logits)
    expected = np.linalg.svd(p, compute_uv=False).sum() / np.sqrt(min(p.shape) * len(p))
    found = NuclearNorm().estimate(target(logits))
    assert (found.score, found.accuracy) == (pytest.approx(expected), None)


@pytest.mark.parametrize("sharp", [1.0, 40.0])
def test_mano_trusts_softmax_where_predictions_are_sharp(sharp: float) -> None:
    logits, _ = drawn(6, sharp=sharp)
    p = softmax(logits)
    is_confident = -np.log(np.maximum(p, np.finfo(float).tiny)).mean() > 5
    assert is_confident == (sharp > 10)
    z = logits - logits.min(axis=1, keepdims=True)
    taylor = 1 + z + z**2 / 2
    sigma = p if is_confident else taylor / taylor.sum(axis=1, keepdims=True)
    assert MaNo().estimate(target(logits)).score == pytest.approx(np.mean(sigma**4) ** 0.25)


def test_agreement_is_the_share_of_equal_predictions() -> None:
    mine, other = drawn(7)[0], drawn(8)[0]
    found = Agreement().estimate(target(mine, peer=other))
    assert found.accuracy == pytest.approx(np.mean(mine.argmax(axis=1) == other.argmax(axis=1)))
    with pytest.raises(harness.InputError, match="needs another training"):
        Agreement().estimate(target(mine))


def test_aetta_scales_disagreement_under_dropout_by_evenness() -> None:
    rng = np.random.default_rng(9)
    penultimate, weight = rng.normal(size=(50, 6)), rng.normal(size=(CLASSES, 6))
    logits = penultimate @ weight.T
    head = harness.LinearHead(torch.from_numpy(weight), torch.zeros(CLASSES, dtype=torch.float64))
    fitted = Aetta(passes=3, rate=0.5).fit(harness.FitData(head=head))
    found = fitted.estimate(target(logits, penultimate=penultimate))
    generator = torch.Generator().manual_seed(3)
    differing, total = [], np.zeros(CLASSES)
    for start in range(0, 50, 13):
        rows = penultimate[start : start + 13]
        own = logits[start : start + 13].argmax(axis=1)
        count = np.zeros(len(rows))
        for _ in range(3):
            kept = (torch.rand(rows.shape, generator=generator) >= 0.5).numpy()
            p = softmax(2 * rows * kept @ weight.T)
            count += p.argmax(axis=1) != own
            total += p.sum(axis=0)
        differing += (count / 3).tolist()
    mean = total / total.sum()
    evenness = -(mean * np.log(mean)).sum() / np.log(CLASSES)
    assert found.accuracy == pytest.approx(1 - min(np.mean(differing) / evenness**3, 1 - 1 / CLASSES))


ALL: list[Any] = [
    AverageConfidence(), DifferenceOfConfidences(), ThresholdedConfidence(), ThresholdedConfidence("entropy"),
    OptimalTransport(), OptimalTransport(True), NuclearNorm(), MaNo(),
]  # fmt: skip


def fitted(estimator: Any) -> Any:
    return estimator.fit(fit_data()) if hasattr(estimator, "fit") else estimator


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: str(e).partition("(")[0])
def test_the_order_of_images_does_not_matter(estimator: Any) -> None:
    logits, _ = drawn(10)
    order = np.random.default_rng(0).permutation(len(logits))
    one, other = (fitted(estimator).estimate(target(z)).score for z in (logits, logits[order]))
    assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: str(e).partition("(")[0])
def test_an_estimate_is_the_same_each_time_and_lies_in_its_interval(estimator: Any) -> None:
    logits, _ = drawn(11)
    first, again = (fitted(estimator).estimate(target(logits)) for _ in range(2))
    assert first == again
    if first.accuracy is not None:
        assert 0 <= first.lo <= first.accuracy <= first.hi <= 1


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: str(e).partition("(")[0])
def test_one_image_one_class_and_two_classes_are_no_trouble(estimator: Any) -> None:
    one = fitted(estimator).estimate(target(drawn(12, 1)[0]))
    assert np.isfinite(one.score)
    constant = fitted(estimator).estimate(target(np.tile([9.0, 0.0, 0.0, 0.0], (20, 1))))
    assert np.isfinite(constant.score)
    logits, labels = drawn(13, 40, classes=2)
    features = harness.Features(logits=torch.from_numpy(logits), labels=torch.from_numpy(labels))
    data = harness.FitData(validation=harness.FeatureSet.of(features))
    on_two = estimator.fit(data) if hasattr(estimator, "fit") else estimator
    assert np.isfinite(on_two.estimate(target(drawn(14, 30, classes=2)[0])).score)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: str(e).partition("(")[0])
def test_nan_is_refused_in_one_line(estimator: Any) -> None:
    logits, _ = drawn(15)
    logits[3, 1] = np.nan
    with pytest.raises(harness.InputError, match="NaN") as raised:
        fitted(estimator).estimate(target(logits))
    assert "\n" not in str(raised.value)


def test_calibrated_predictions_have_their_confidence_as_accuracy() -> None:
    rng = np.random.default_rng(16)
    p = softmax(2 * rng.normal(size=(20_000, CLASSES)))
    labels = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    features = harness.Features(logits=torch.from_numpy(np.log(p)), labels=torch.from_numpy(labels))
    data = harness.FitData(validation=harness.FeatureSet.of(features))
    found = AverageConfidence().fit(data).estimate(target(np.log(p)))
    assert found.accuracy == pytest.approx(np.mean(p.argmax(axis=1) == labels), abs=0.01)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, 0.0]], [2], "labels go from 2 to 2, but logits have 2 classes"),
        ([[float("nan"), 0.0]], [0], "NaN"),
        (np.zeros((0, 2)), [], "no validation samples"),
    ],
)
def test_validation_data_that_fit_no_temperature_are_refused(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(harness.InputError, match=message):
        fit_temperature(
            torch.as_tensor(np.asarray(logits)), torch.as_tensor(np.asarray(labels, dtype=np.int64))
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ThresholdedConfidence("margin"), "no score named 'margin'"),  # type: ignore[arg-type]
        (lambda: OptimalTransport(limit=0), "limit is 0"),
        (lambda: Aetta(passes=0), "passes is 0"),
        (lambda: Aetta(rate=1.0), r"rate is 1\.0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(build: Any, message: str) -> None:
    with pytest.raises(harness.HarnessError, match=message):
        build()
