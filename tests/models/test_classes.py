"""A model's outputs stand in the order of the data's classes, by name, by a map or by number; nothing is guessed."""

from __future__ import annotations

import copy

import pytest
import torch
from small_networks import made

from harness.base.errors import InputError
from harness.contract.features import LinearHead
from harness.contract.preprocessing import Preprocessing
from harness.contract.specs import Model
from harness.data.classes import DataClasses
from harness.models.classes import Reordered, matched
from harness.models.heads import probe, verified_head

GREY = Preprocessing((1, 8, 8))
NAMES = ("ant", "bee", "cow", "dog")


def model(names: tuple[str, ...] | None = NAMES, synonyms: tuple[str, ...] | None = None) -> Model:
    return Model(made(), GREY, 4, class_names=names, class_synonyms=synonyms)


def test_outputs_come_in_the_order_of_the_data_and_the_others_behind() -> None:
    given = model()
    found, facts = matched(given, DataClasses(2, ("dog", "bee")), label="m")
    images = probe(GREY, "cpu")
    own = given.classifier(images)
    assert torch.equal(found.classifier(images), own[:, [3, 1, 0, 2]])
    assert found.class_names == ("dog", "bee", "ant", "cow")
    assert facts == {"data": 2, "model": 4, "matched": "name"}


def test_equal_order_leaves_the_model_as_it_is() -> None:
    given = model()
    found, facts = matched(given, DataClasses(4, NAMES), label="m")
    assert found is given
    assert facts["matched"] == "name"


def test_a_reordered_model_keeps_its_features_and_has_a_linear_head() -> None:
    found, _ = matched(model(), DataClasses(2, ("dog", "bee")), label="m")
    network = found.classifier
    assert isinstance(network, Reordered)
    images = probe(GREY, "cpu")
    maps = network.forward_features(images)
    penultimate = network.forward_head(maps, pre_logits=True)
    head = verified_head(network, images)
    assert isinstance(head, LinearHead)
    assert torch.allclose(head(penultimate), network(images))
    assert torch.equal(copy.deepcopy(network)(images), network.forward_head(maps))


def test_outputs_beyond_the_classes_stay_last() -> None:
    network = made(classes=6)
    wide = Reordered(network, torch.tensor([1, 0, 2, 3]))
    images = probe(GREY, "cpu")
    assert torch.equal(wide(images), network(images)[:, [1, 0, 2, 3, 4, 5]])


def test_layers_keep_their_names_within_the_network() -> None:
    network = made()
    network.feature_info = [{"module": "conv", "num_chs": 8}]
    wide = Reordered(network, torch.arange(4))
    assert wide.feature_info == [{"module": "network.conv", "num_chs": 8}]
    assert "network.conv" in dict(wide.named_modules())


def test_equal_names_need_not_be_distinct() -> None:
    twice = ("crane", "bee", "crane", "dog")  # as in the names of ImageNet's classes
    found, _ = matched(model(twice), DataClasses(4, twice), label="m")
    assert found.class_names == twice


@pytest.mark.parametrize("synonyms", [None, ("a", "b")])
def test_a_model_with_another_number_of_names_than_classes_is_refused(
    synonyms: tuple[str, ...] | None,
) -> None:
    given = model(NAMES if synonyms else NAMES[:3], synonyms)
    with pytest.raises(InputError, match="'m' states names for [23] of its 4 classes"):
        matched(given, DataClasses(2, ("dog", "bee")), label="m")


def test_synonyms_are_names_too() -> None:
    given = model(("n1", "n2", "n3", "n4"), ("ant, emmet", "bee", "cow, moo", "dog"))
    found, _ = matched(given, DataClasses(2, ("moo", "Emmet")), label="m")
    assert found.class_names is not None
    assert found.class_names[:2] == ("n3", "n1")


def test_a_map_goes_before_names() -> None:
    class_map = {"yak": "cow", "gnu": "0"}
    found, facts = matched(model(), DataClasses(2, ("gnu", "yak")), label="m", class_map=class_map)
    assert found.class_names == ("ant", "cow", "bee", "dog")
    assert facts["matched"] == "map"
    unnamed, _ = matched(model(None), DataClasses(2), label="m", class_map={"0": "3", "1": "2"})
    images = probe(GREY, "cpu")
    assert torch.equal(unnamed.classifier(images), made()(images)[:, [3, 2, 0, 1]])


@pytest.mark.parametrize(
    ("data", "names"), [(DataClasses(4), NAMES), (DataClasses(4, NAMES), None), (DataClasses(3), None)]
)
def test_without_names_on_both_sides_numbers_count(data: DataClasses, names: tuple[str, ...] | None) -> None:
    given = model(names)
    found, facts = matched(given, data, label="m")
    assert found is given
    assert facts["matched"] == "number"


@pytest.mark.parametrize(
    ("given", "data", "class_map", "message"),
    [
        (NAMES, DataClasses(5), None, "'m' has 4 classes, the suite's ID data have 5"),
        (NAMES, DataClasses(2, ("dog", "yak")), None, "does not know the classes yak .* It knows ant, bee"),
        (None, DataClasses(2, ("dog", "bee")), None, "has 4 classes without names, .*have 2"),
        (None, DataClasses(2, None, renumbered=True), None, "has 4 classes without names"),
        (NAMES, DataClasses(2, ("dog", "yak")), {"dog": "dog"}, "has no line for the classes yak"),
        (
            NAMES,
            DataClasses(1, ("yak",)),
            {"yak": "gnu"},
            "names the model's class 'gnu'. Give a number from 0 to 3",
        ),
        (
            None,
            DataClasses(1, ("yak",)),
            {"yak": "4"},
            "names the model's class '4'. Give a number from 0 to 3",
        ),
        (
            NAMES,
            DataClasses(2, ("yak", "gnu")),
            {"yak": "cow", "gnu": "2"},
            "yak, gnu .*are one class .*'cow'",
        ),
    ],
)
def test_what_cannot_be_matched_is_refused_with_the_names(
    given: tuple[str, ...] | None, data: DataClasses, class_map: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        matched(model(given), data, label="m", class_map=class_map)
