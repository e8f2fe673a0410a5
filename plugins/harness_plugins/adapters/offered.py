"""Offers this package's adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "harness_plugins.adapters"


@harness.hookimpl
def harness_adapters() -> Iterator[harness.AdapterSpec]:
    """Offer the adapters."""
    anything: set[str] = set()
    layers = {"normalisation"}
    for name, address, needs, cite in (
        ("source", "source:Source", anything, "the baseline of Wang et al., ICLR 2021, arXiv 2006.10726"),
        ("norm", "norm:Norm", {"batchnorm"}, "Schneider et al., NeurIPS 2020, arXiv 2006.16971"),
        ("tent", "tent:Tent", layers, "Wang et al., ICLR 2021, arXiv 2006.10726"),
        ("eta", "eta:Eta", layers, "Niu et al., ICML 2022, arXiv 2204.02610"),
        ("eata", "eta:Eata", layers | {"train"}, "Niu et al., ICML 2022, arXiv 2204.02610"),
        ("rdumb", "eta:RDumb", layers, "Press et al., NeurIPS 2023, arXiv 2306.05401"),
        ("sar", "sar:Sar", layers, "Niu et al., ICLR 2023, arXiv 2302.12400"),
        ("cotta", "cotta:CoTTA", anything, "Wang et al., CVPR 2022, arXiv 2203.13591"),
        ("lame", "lame:Lame", anything, "Boudiaf et al., CVPR 2022, arXiv 2201.05718"),
        ("memo", "memo:Memo", anything, "Zhang et al., NeurIPS 2022, arXiv 2110.09506"),
        ("deyo", "deyo:DeYO", layers, "Lee et al., ICLR 2024, arXiv 2403.07366"),
    ):
        yield harness.AdapterSpec(name, harness.Deferred(f"{PACKAGE}.{address}"), needs, cite)
