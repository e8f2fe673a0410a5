"""Offers this package's probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "harness_plugins.probes"
DIFFUSION, ER = "Liao et al., arXiv 2312.04823", "Rodríguez-Gálvez et al., ICML 2023"


@harness.hookimpl
def harness_probes() -> Iterator[harness.ProbeSpec]:
    """Offer the probes."""
    features, labelled, fitted = (
        {"penultimate"},
        {"penultimate", "labels"},
        {"penultimate", "labels", "train"},
    )
    for name, address, needs, cite, unit in (
        ("dse", "entropies:DiffusionEntropy", features, DIFFUSION, "bits"),
        ("dsmi", "entropies:DiffusionInformation", labelled, DIFFUSION, "bits"),
        ("dsmi_inputs", "entropies:InputInformation", {"penultimate", "inputs"}, DIFFUSION, "bits"),
        ("vmf_entropy", "entropies:VmfEntropy", features, ER, "nats"),
        ("class_entropy", "entropies:ClassEntropy", {"logits"}, ER, "nats"),
        ("classifier_accuracy", "accuracy:ClassifierAccuracy", {"logits", "labels"}, "", ""),
        ("knn_accuracy", "accuracy:KnnAccuracy", fitted, "Wu et al., CVPR 2018", ""),
        (
            "linear_probe_accuracy",
            "accuracy:LinearProbeAccuracy",
            fitted,
            "Alain & Bengio, arXiv 1610.01644",
            "",
        ),
    ):
        yield harness.ProbeSpec(name, harness.Deferred(f"{PACKAGE}.{address}"), needs, cite, unit)
