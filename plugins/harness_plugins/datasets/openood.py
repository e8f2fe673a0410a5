"""The image lists of OpenOOD v1.5: which data a result must come from to be quoted as measured by its protocol.

A list is known by the SHA-256 of its lines `path label`, each ended by a line feed: what `sha256sum` prints for the
file as it is published. OpenOOD hosts its lists where they cannot be fetched without a browser. The digests are
therefore those of copies in public repositories: of CIFAR-10, without CIFAR-10-C, two that agree
(glhr/ood-labelnoise, HengGao12/OTOD); of CIFAR-10-C and ImageNet one each (HengGao12/OTOD,
facebookresearch/UnifiedUncertaintyCalibration). ImageNet's training list was in none of them; it is known by its name
and its number of lines.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Known:
    """A published list: its file, its number of lines, and the SHA-256 of its lines, if known."""

    file: str
    lines: int
    sha256: str | None


# By protocol, then by part: a part of ID, or the group and name of a set.
PROTOCOLS: Mapping[str, Mapping[str, Known]] = {
    "OpenOOD v1.5, CIFAR-10": {
        "id.train": Known(
            "cifar10/train_cifar10.txt",
            50_000,
            "9317e18980f1b11df74bba9d64223e57e69bd08c2943adbc75aec393a4976d1b",
        ),
        "id.validation": Known(
            "cifar10/val_cifar10.txt",
            1_000,
            "6f64c4370bf3c61dab3308f7e8c5c94938b112b20d38cca77c1dfa0bcc5c1d89",
        ),
        "id.test": Known(
            "cifar10/test_cifar10.txt",
            9_000,
            "84559ec5225425e7f7363058d5f9442ed21a39c7c66b63c3f1bb8b1ddb935e13",
        ),
        "near/cifar100": Known(
            "cifar10/test_cifar100.txt",
            9_000,
            "f907cb13024ba0fd13099954064df8f2f1ab8e3369c27b95ab44f3c5fc87ad16",
        ),
        "near/tin": Known(
            "cifar10/test_tin.txt",
            7_793,
            "a44fd34e3c925d984063d2ad64969ff71e8fa6f5524fbe9da481c8b0c87b27cd",
        ),
        "far/mnist": Known(
            "cifar10/test_mnist.txt",
            70_000,
            "48f8055d7327cbe91bff3ab6b43f9b623c3983355c55c246207907841c2ccb92",
        ),
        "far/svhn": Known(
            "cifar10/test_svhn.txt",
            26_032,
            "f0cb7b825a985af2a6bf803cf51d7ca004e24ee8d8051eb6805bf77c77621c1e",
        ),
        "far/texture": Known(
            "cifar10/test_texture.txt",
            5_640,
            "644fcaec364ee1ee440ff5285e1581d162b957378bb240ac4b7fc26e4f2f48e4",
        ),
        "far/places365": Known(
            "cifar10/test_places365.txt",
            35_195,
            "fa127faa5c1bbc5b567e1cd2871b04b570f045d1676550f441ec5e7c91ab6cc7",
        ),
        "csid/cifar10c": Known(
            "cifar10/test_cifar10c.txt",
            10_000,
            "92bf50253d3f030c4cf9c3acb2434688c3ce5cccd05a393d5a977c0c4974f601",
        ),
    },
    "OpenOOD v1.5, ImageNet-1K": {
        "id.train": Known("imagenet/train_imagenet.txt", 1_281_167, None),
        "id.validation": Known(
            "imagenet/val_imagenet.txt",
            5_000,
            "b352c357d25ca94aae787ff7a65aaee0a4c219ab4021481ce3ccc97b88904fea",
        ),
        "id.test": Known(
            "imagenet/test_imagenet.txt",
            45_000,
            "7e0e05f8aa8e312992bfe342d57b8513dd4e62b68fedb5a1c63b6bca662d047c",
        ),
        "near/ssb_hard": Known(
            "imagenet/test_ssb_hard.txt",
            49_000,
            "e2dc7ba6c1e2bd2179a06038598344d5d8716be3bbc9409c45b0c3de95431510",
        ),
        "near/ninco": Known(
            "imagenet/test_ninco.txt",
            5_879,
            "28450babf7d8d7389b75989a3af15346be0d514f048eac3711694045fdf40dd8",
        ),
        "far/inaturalist": Known(
            "imagenet/test_inaturalist.txt",
            10_000,
            "86a19665f968eecf17383bafa15dea3aeb53db96c305d08f026cdb6438376ecb",
        ),
        "far/textures": Known(
            "imagenet/test_textures.txt",
            5_160,
            "9cf1ff7e97ce67ea61a8bb1ffc17bb845ae06e1d22bfebc74c3c0aa284a408c9",
        ),
        "far/openimage_o": Known(
            "imagenet/test_openimage_o.txt",
            15_869,
            "cbfb3ab73257f2d1523e1358e3c55d9589844194447cbad737248835cceb2ffc",
        ),
        "csid/imagenet_v2": Known(
            "imagenet/test_imagenet_v2.txt",
            10_000,
            "44f4322a5a44f1ccdb9449eae9c26bf12d831c459c23f726e5aabedcd8b0a0bf",
        ),
        "csid/imagenet_c": Known(
            "imagenet/test_imagenet_c.txt",
            10_000,
            "d31f2b2fb1b242e8e200b94be5de3405ba9165eaa16a260632ba2c9200acdabe",
        ),
        "csid/imagenet_r": Known(
            "imagenet/test_imagenet_r.txt",
            30_000,
            "a9668e25fa5c7d291af4c0ebed6a6b718b87770a45b34121e95be3baf7b43c1c",
        ),
    },
}


def protocol_of(file: Path, paths: Sequence[str], labels: Sequence[int]) -> dict[str, object] | None:
    """Say which protocol a list belongs to, as the fact `protocol` of a dataset; None for a list of nobody's.

    A list with the name of a published one and other lines belongs to the protocol, too, and is not `original`.
    """
    digest = _digest_of(paths, labels)
    for name, parts in PROTOCOLS.items():
        for part, known in parts.items():
            has_its_name = file.as_posix().endswith(f"/{known.file}")
            is_original = digest == known.sha256 or (
                known.sha256 is None and has_its_name and len(paths) == known.lines
            )
            if is_original or has_its_name:
                return {"name": name, "part": part, "parts": list(parts), "original": is_original}
    return None


def _digest_of(paths: Sequence[str], labels: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        digest.update(os.fsencode(f"{path} {label}\n"))
    return digest.hexdigest()
