from __future__ import annotations

from typing import Any

import pytest
from timm.data import transforms
from timm.models._registry import _model_pretrained_cfgs as known_to_timm

from harness.base.errors import InputError
from harness.contract.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing, preprocessing_text

RGB: dict[str, Any] = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": (3, 0, 8)}, "input_size (3, 0, 8) must be three whole numbers above 0"),
        ({"input_size": (3, 8)}, "input_size (3, 8) must be three whole numbers above 0"),
        ({"mean": (123.675, 116.28, 103.53)}, "on the scale of 0 to 255. Divide by 255, as in 0.485"),
        ({"std": (58.395, 57.12, 57.375)}, "on the scale of 0 to 255. Divide by 255, as in 0.229"),
        ({"std": (0.5, 0.0, 0.5)}, "std (0.5, 0.0, 0.5) must be above 0"),
        ({"std": (0.5, -0.2, 0.5)}, "std (0.5, -0.2, 0.5) must be above 0"),
        ({"mean": (NAN, 0.5, 0.5)}, "mean (nan, 0.5, 0.5) must be finite numbers"),
        ({"std": (0.5, float("inf"), 0.5)}, "std (0.5, inf, 0.5) must be finite numbers"),
        ({"crop_pct": 0.0}, "crop_pct is 0.0. Give the share of the resized image that is kept, above 0"),
        ({"crop_pct": NAN}, "crop_pct is nan"),
        ({"crop_pct": 87.5}, "crop_pct is 87.5"),
        ({"crop_mode": "centre"}, "no crop_mode named 'centre'. Did you mean 'center'?"),
        ({"interpolation": "bicubik"}, "no interpolation named 'bicubik'. Did you mean 'bicubic'?"),
        ({"interpolation": "random"}, "no interpolation named 'random'"),
    ],
)
def test_a_preprocessing_that_cannot_be_meant_is_refused_in_one_line(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Preprocessing(**RGB | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_preprocessing_that_timm_knows_is_valid() -> None:
    for config in known_to_timm.values():
        found = Preprocessing(
            config.input_size,
            config.mean,
            config.std,
            interpolation=config.interpolation,
            crop_pct=config.crop_pct,
            crop_mode=config.crop_mode,
        )
        assert (found.mean, found.std, found.crop_pct) == (config.mean, config.std, config.crop_pct)


def test_the_interpolations_are_those_of_timm() -> None:
    assert set(INTERPOLATIONS) == set(transforms._torch_interpolation_to_str.values())
    assert {config.crop_mode for config in known_to_timm.values()} == set(CROP_MODES)


def test_the_text_names_size_interpolation_crop_normalisation_and_source() -> None:
    stated = Preprocessing(
        (3, 224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.875,
        source="config.json",
    )
    assert stated.text == (
        "224 px, bicubic, crop .875 (center), mean .485 .456 .406, std .229 .224 .225, from config.json"
    )
    grey = Preprocessing((1, 28, 32), source="the suite", assumed=("crop_pct", "interpolation"))
    assert grey.text == (
        "28×32 px grey, bilinear, crop 1 (center), mean 0, std 1, from the suite (not stated: crop_pct, interpolation)"
    )
    assert Preprocessing(**RGB).text == "8 px, bilinear, crop 1 (center), mean .5, std .5"


def test_the_text_of_a_record_is_that_of_the_preprocessing() -> None:
    stated = Preprocessing(**RGB, source="the suite", assumed=("crop_pct",))
    assert preprocessing_text(stated.facts) == stated.text


def test_the_source_changes_neither_equality_nor_what_keys_contain() -> None:
    one, other = Preprocessing(**RGB), Preprocessing(**RGB, source="config.json", assumed=("crop_pct",))
    assert one == other
    assert one.values == other.values
    assert set(one.values) == {"input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"}


def test_a_part_can_be_replaced_and_the_source_says_so() -> None:
    own = Preprocessing(**RGB, source="config.json", assumed=("crop_pct", "interpolation"))
    changed = own.overridden({"crop_pct": 0.9}, by="the suite")
    assert changed == Preprocessing(**RGB, crop_pct=0.9)
    assert changed.source == "config.json, changed by the suite: crop_pct"
    assert changed.assumed == ("interpolation",)
    stated = own.overridden({"crop_pct": 0.9, "interpolation": "bicubic"}, by="the suite")
    assert (stated.source, stated.assumed) == ("the suite", ())  # nothing that was stated before is replaced
    whole = own.overridden(own.values, by="the suite")
    assert (whole.source, whole.assumed) == ("the suite", ())
    assert own.overridden({}, by="the suite") is own
