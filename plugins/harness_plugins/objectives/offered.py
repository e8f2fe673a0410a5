"""Offers this package's objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "harness_plugins.objectives"


@harness.hookimpl
def harness_objectives() -> Iterator[harness.ObjectiveSpec]:
    """Offer the objectives."""
    for name, address, needs, cite in (
        ("cross_entropy", "linear:CrossEntropy", (), "Szegedy et al., CVPR 2016, arXiv 1512.00567"),
        ("logitnorm", "linear:LogitNorm", (), "Wei et al., LogitNorm, ICML 2022"),
        ("outlier_exposure", "linear:OutlierExposure", ("auxiliary",), "Hendrycks et al., ICLR 2019"),
        ("isomax", "isomax:IsoMax", (), "Macêdo et al., IsoMax, IJCNN 2021"),
        ("isomaxplus", "isomax:IsoMaxPlus", (), "Macêdo et al., IsoMax+, arXiv 2105.14399"),
        ("er", "er:EntropyReconstruction", (), "Rodríguez-Gálvez et al., ER, ICML 2023"),
        ("infonce", "contrastive:InfoNCE", (), "van den Oord et al., 2018; Chen et al., SimCLR, ICML 2020"),
        ("byol", "contrastive:BYOL", (), "Grill et al., BYOL, NeurIPS 2020"),
        ("dino", "dino:DINO", (), "Caron et al., DINO, ICCV 2021"),
        ("swav", "swav:SwAV", (), "Caron et al., SwAV, NeurIPS 2020"),
        ("deepcluster", "deepcluster:DeepCluster", (), "Caron et al., DeepCluster, ECCV 2018; SwAV, 2020"),
    ):
        build = harness.Deferred(f"{PACKAGE}.{address}")
        yield harness.ObjectiveSpec(name, build, needs, cite, is_default=name == "cross_entropy")
