"""Offers this package's estimators of accuracy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "harness_plugins.estimators"


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    """Offer the estimators of accuracy."""
    clean = {"logits", "validation"}
    thresholds = harness.Deferred(f"{PACKAGE}.thresholds:ThresholdedConfidence")
    transport = harness.Deferred(f"{PACKAGE}.transport:OptimalTransport")
    yield from _flips()
    for name, build, needs, cite in (
        (
            "average_confidence",
            _at("confidence:AverageConfidence"),
            clean,
            "Guo et al., ICML 2017, arXiv 1706.04599",
        ),
        (
            "doc",
            _at("confidence:DifferenceOfConfidences"),
            clean,
            "Guillory et al., ICCV 2021, arXiv 2107.03315",
        ),
        ("atc_mc", partial(thresholds, "confidence"), clean, "Garg et al., ICLR 2022, arXiv 2201.04234"),
        ("atc_ne", partial(thresholds, "entropy"), clean, "Garg et al., ICLR 2022, arXiv 2201.04234"),
        ("cot", partial(transport, False), clean, "Lu et al., NeurIPS 2023, arXiv 2305.15640"),
        ("cott", partial(transport, True), clean, "Lu et al., NeurIPS 2023, arXiv 2305.15640"),
        (
            "agreement",
            _at("disagreement:Agreement"),
            {"logits", "peer"},
            "Jiang et al., ICLR 2022, arXiv 2106.13799",
        ),
        ("nuclear_norm", _at("norms:NuclearNorm"), {"logits"}, "Deng et al., ICML 2023, arXiv 2302.01094"),
        ("mano", _at("norms:MaNo"), {"logits"}, "Xie et al., NeurIPS 2024, arXiv 2405.18979"),
        (
            "aetta",
            _at("disagreement:Aetta"),
            {"logits", "penultimate", "head"},
            "Lee et al., CVPR 2024, arXiv 2404.01351",
        ),
    ):
        yield harness.EstimatorSpec(name, build, needs, cite)


def _flips() -> Iterator[harness.EstimatorSpec]:
    """Offer the flips of both definitions; the published one as it is, and after temperature scaling."""
    needs, cite = {"images", "normalisation"}, "Press et al., ICML 2024, arXiv 2405.05012"
    flips, scaled = _at("flips:Flips"), _at("flips:FlipsScaled")
    reference = harness.ReferenceModel("timm:resnet50.tv_in1k", classes=1000)
    # 40 or 990 steps in batches of 64, forward and backward, and two predictions of the probe
    yield harness.EstimatorSpec("flips", flips, needs, cite, passes=9)
    published = partial(flips, published="weighted_quadratic")
    yield harness.EstimatorSpec("flips_published", published, needs, cite, 192, reference)
    needs |= {"logits", "validation"}
    yield harness.EstimatorSpec("flips_published_scaled", scaled, needs, cite, 192, reference)


def _at(address: str) -> harness.Deferred:
    return harness.Deferred(f"{PACKAGE}.{address}")
