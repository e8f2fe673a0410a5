"""A plugin for the tests: images whose grey level tells their class, a network that reads it, and unruly scorers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import harness
from harness.models.heads import probe

DECODED: Counter[bytes] = Counter()  # how often each image was decoded
FORWARDED: Counter[bytes] = Counter()  # how often each normalised image was forwarded
OPENED: list[int] = []  # the epochs that models were opened at, in order
FITTED: Counter[str] = Counter()  # how often each scorer was fitted


class Levels:
    """Grey images whose mean level is 40 + 30 * label, plus seeded noise; OOD is brighter than any class."""

    def __init__(
        self, count: int, classes: int, seed: int, offset: int, side: int, names: list[str] | None = None
    ) -> None:
        """Take the names of the classes in the order of their labels: the class "level 2" has the third level."""
        rng = np.random.default_rng(seed)
        self.labels = np.arange(count) % classes
        self.class_names = None if names is None else tuple(names)
        levels = self.labels if names is None else level_of(names)[self.labels]
        noise = rng.integers(-12, 13, size=(count, side, side))
        level = offset + 40 + 30 * levels[:, None, None]
        self._images = np.clip(level + noise, 0, 255).astype(np.uint8)
        self.digest = hashlib.blake2b(self._images.tobytes() + self.labels.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        image = self._images[index]
        DECODED[image.tobytes()] += 1
        return image

    def identity(self, index: int) -> bytes:
        return self._images[index].tobytes()


def level_of(names: list[str]) -> np.ndarray:
    """Read the levels off the names of classes."""
    return np.array([int(name.split()[-1]) for name in names])


def levels(
    request: harness.DatasetRequest,
    count: int = 40,
    classes: int = 3,
    seed: int | None = None,
    offset: int = 0,
    side: int = 4,
    names: list[str] | None = None,
    factual: bool = False,
) -> Levels:
    seeds = {"train": 1, "validation": 2, "test": 3, None: 4}
    if request.split not in seeds:
        raise harness.DatasetError(f"levels has no split {request.split!r}. Valid: train, validation, test")
    dataset = Levels(count, classes, seeds[request.split] if seed is None else seed, offset, side, names)
    if factual:
        dataset.facts = {"a": {1}}  # which is no JSON
    return dataset


def unlabelled(request: harness.DatasetRequest) -> Levels:
    dataset = levels(request)
    dataset.labels = np.full(len(dataset), -1)
    return dataset


def partly(request: harness.DatasetRequest) -> Levels:
    """Give the first two images no label."""
    dataset = levels(request)
    dataset.labels[:2] = -1
    return dataset


def gone(request: harness.DatasetRequest) -> Levels:
    raise harness.DatasetError("the drive of 'gone' has died. Fetch it again")


class Unreadable(Levels):
    """Images none of which can be decoded, or those at some positions."""

    def __init__(self, *arguments: int, broken: range) -> None:
        super().__init__(*arguments)
        self._broken = broken

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self._broken:
            raise harness.DatasetError(f"image {index} of 'unreadable' is damaged")
        return super().__getitem__(index)


def unreadable(request: harness.DatasetRequest, broken: int = 40) -> Unreadable:
    return Unreadable(40, 3, 4, 90, 4, broken=range(broken))


def is_probe(images: Tensor) -> bool:
    """Return whether these begin with the random images on which a model is examined when it is loaded."""
    random = probe(harness.Preprocessing(tuple(images.shape[1:])), "cpu")
    return images.shape == random.shape and torch.equal(images[:1], random[:1])


class Broken(nn.Linear):
    """Finite weights, and outputs that are NaN."""

    def forward(self, penultimate: Tensor) -> Tensor:
        return super().forward(penultimate) * torch.nan


class Network(nn.Module):
    """Two features, mean and spread, and a linear head."""

    def __init__(self, outputs: int, shift: float) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.fc = nn.Linear(2, outputs)
        self.feature_info = [{"module": "body", "num_chs": 1}]
        with torch.no_grad():
            centres = torch.arange(outputs, dtype=torch.float32)
            self.fc.weight.copy_(torch.stack([4 * centres, torch.zeros(outputs)], dim=1))
            self.fc.bias.copy_(-2 * centres**2 + shift)

    def forward_features(self, images: Tensor) -> Tensor:
        if not is_probe(images):
            for image in images:
                FORWARDED[image.detach().numpy().tobytes()] += 1
        return self.body(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        level = (features.mean(dim=(1, 2, 3)) * 255 - 40) / 30
        penultimate = torch.stack([level, features.std(dim=(1, 2, 3))], dim=1)
        return penultimate if pre_logits else self.fc(penultimate)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.register_buffer("number", torch.tensor(float(number)))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.number


class Distance(nn.Module):
    """A head without W and b: negative distances to class centres."""

    def forward(self, penultimate: Tensor) -> Tensor:
        return -(penultimate[:, :1] - torch.arange(3.0)).abs()


def network(
    request: harness.ModelRequest,
    outputs: int = 3,
    classes: int | None = None,
    head: str = "linear",
    std: float = 1.0,
    broken: bool = False,
    size: int = 4,
    names: list[str] | None = None,
    known: bool = True,
    trains: bool = False,
    keeps: bool = True,
) -> harness.Model:
    """Build a network whose outputs are of the given names, which it tells if they are known.

    If it trains, it counts as trained on the request's train part. If it keeps its epochs, its features are `epoch`
    times those after the first.
    """
    model = Network(outputs, shift=0.1 * request.seed)
    if request.epoch is not None:
        OPENED.append(request.epoch)
        model.body = Times(request.epoch)
    if names is not None:
        of = torch.as_tensor(level_of(names))
        model.fc.weight.data, model.fc.bias.data = model.fc.weight.data[of], model.fc.bias.data[of]
    if broken:
        model.fc = Broken(2, outputs)
    if head == "distance":
        model.fc = Distance()
    preprocessing = harness.Preprocessing(input_size=(1, size, size), std=(std,))
    told = tuple(names) if names is not None and known else None
    trained_on = request.data.train.digest if trains and request.data is not None else ""
    return harness.Model(
        model.eval(),
        preprocessing,
        outputs if classes is None else classes,
        class_names=told,
        trained_on=trained_on,
    )


class Calibrated:
    """The distance to the mean level of validation."""

    centre = 0.0

    def fit(self, data: harness.FitData) -> Calibrated:
        fitted = Calibrated()
        fitted.centre = float(torch.cat([chunk.penultimate for chunk in data.validation])[:, 0].mean())
        return fitted

    def score(self, features: harness.Features) -> Tensor:
        return (features.penultimate[:, 0] - self.centre).abs()


@dataclass(frozen=True)
class Level:
    """The mean level, read from the penultimate features."""

    sign: float = 1.0

    def score(self, features: harness.Features) -> Tensor:
        return self.sign * features.penultimate[:, 0]


@dataclass(frozen=True)
class Margin:
    """The negative margin between the two largest logits."""

    def score(self, features: harness.Features) -> Tensor:
        top = features.logits.topk(2).values
        return top[:, 1] - top[:, 0]


@dataclass(frozen=True)
class FromTrain:
    """The distance to the mean training level."""

    centre: float | None = None

    def fit(self, data: harness.FitData) -> FromTrain:
        FITTED["from_train"] += 1
        total = sum(float(chunk.penultimate[:, 0].sum()) for chunk in data.train)
        return FromTrain(total / len(data.train))

    def score(self, features: harness.Features) -> Tensor:
        return (features.penultimate[:, 0] - self.centre).abs()


@dataclass(frozen=True)
class NeedsLinear:
    """Reads the head's weight."""

    weight: Tensor | None = None

    def fit(self, data: harness.FitData) -> NeedsLinear:
        return NeedsLinear(data.linear.weight)

    def score(self, features: harness.Features) -> Tensor:
        return -(features.penultimate @ self.weight.T).amax(dim=1)


@dataclass(frozen=True)
class Gradient:
    """The image's mean, after a gradient that it takes and passes over."""

    def score_images(self, images: Tensor, classifier: harness.Classifier) -> Tensor:
        images = images.clone().requires_grad_()
        logits = classifier.forward_head(classifier.forward_features(images))
        (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), images)
        return images.detach().mean(dim=(1, 2, 3)) + 0 * gradient.sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class Whole:
    """How far above the whole stream's mean level an image is, and above its own model's first class."""

    how: str = "right"

    def score_stream(self, stream: harness.Unlabelled) -> harness.StreamScores:
        if self.how == "raises":
            raise ZeroDivisionError("by design")
        levels = stream.features.take(np.arange(len(stream))).penultimate[:, 0]
        images = stream.batch(np.arange(len(stream)))
        model = stream.model()
        with torch.no_grad():
            model.fc.bias += 100  # its own copy
            again = model.forward_head(model.forward_features(images), pre_logits=True)[:, 0]
        assert torch.equal(levels, again)
        scores = levels - levels.mean()
        return harness.StreamScores(
            scores[:-1] if self.how == "short" else scores,
            variants={"negative": -scores},
            facts={"mean": float(levels.mean())},
            forwards=len(stream),
        )


class Unruly:
    """Fails in the way that its name says."""

    def __init__(self, how: str) -> None:
        self.how = how

    def score(self, features: harness.Features) -> Tensor:
        if self.how == "nan":
            return torch.full((len(features),), float("nan"))
        if self.how == "shape":
            return features.logits
        if self.how == "undeclared":
            return features.penultimate[:, 0]
        if self.how == "in_place":
            return features.logits.zero_()[:, 0]
        if self.how == "infinite":
            return torch.where(features.logits[:, 0] > 0, torch.inf, -torch.inf)
        raise ZeroDivisionError("by design")


@dataclass(frozen=True)
class Mean:
    """The mean of all penultimate features, plus a constant."""

    plus: float = 0.0
    standard_error: float | None = None

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        chunks = [chunk.penultimate.double() for chunk in features]
        return harness.Measurement(torch.cat(chunks).mean().item() + self.plus, self.standard_error)


class Labels:
    """The mean label."""

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        return harness.Measurement(features.labels.double().mean().item())


@dataclass(frozen=True)
class FromTraining:
    """The distance of the mean from that of the training features."""

    centre: Tensor | None = None

    def fit(self, data: harness.FitData) -> FromTraining:
        FITTED["from_training"] += 1
        return FromTraining(data.train.sample(len(data.train), 0).penultimate.mean(dim=0))

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        mean = torch.cat([chunk.penultimate for chunk in features]).mean(dim=0)
        return harness.Measurement((mean - self.centre).norm().item())


class Brightness:
    """The mean normalised pixel."""

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        assert features.fields == {"inputs"}
        found = [chunk.inputs for chunk in features.chunks(7)]
        assert all(part.ndim == 2 for part in found)
        return harness.Measurement(torch.cat(found).double().mean().item())


@dataclass(frozen=True)
class UnrulyProbe:
    """Misbehaves in one of several ways."""

    how: str = "raises"

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        if self.how == "nan":
            return harness.Measurement(float("nan"))
        if self.how == "number":
            return 1.0
        if self.how == "undeclared":
            return harness.Measurement(next(iter(features)).logits.mean().item())
        raise ZeroDivisionError("by design")


@dataclass(frozen=True)
class Bump:
    """After each batch, raise the first class's bias: an adapter whose effect can be told by hand."""

    step: float = 1.0
    answers: str = "before"

    def adapt(self, classifier: Network, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for images in batches:
            with torch.no_grad():
                before = harness.Features(logits=classifier(images))
                classifier.fc.bias[0] += self.step
            yield harness.Adapted(
                before, scored=self.answers, updated=True, forwards=len(images), backwards=2 * len(images)
            )


@dataclass(frozen=True)
class Slide:
    """After each batch, move what the network calls its first class: penultimate features stay, logits do not."""

    step: float = 1.0
    answers: str = "before"

    def adapt(self, classifier: Network, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for images in batches:
            with torch.no_grad():
                maps = classifier.forward_features(images)
                penultimate = classifier.forward_head(maps, pre_logits=True)
                before = harness.Features(logits=classifier.fc(penultimate), penultimate=penultimate)
                classifier.fc.bias[0] += self.step
                classifier.fc.weight[0, 1] += 5 * self.step
            yield harness.Adapted(before, scored=self.answers, updated=True, forwards=len(images))


class Offset(nn.Module):
    """Adds a constant to the level of a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.by = 0.0

    def forward(self, images: Tensor) -> Tensor:
        return images + self.by


@dataclass(frozen=True)
class Brighten:
    """After each batch, brighten what the network sees, so that its penultimate features move."""

    step: float = 0.02

    def adapt(self, classifier: Network, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        classifier.body = Offset()
        for number, images in enumerate(batches):
            with torch.no_grad():
                maps = classifier.forward_features(images)
                penultimate = classifier.forward_head(maps, pre_logits=True)
                before = harness.Features(logits=classifier.fc(penultimate), penultimate=penultimate)
            rests = number == 1  # nothing is learnt from this batch, so that before and after are one
            classifier.body.by += 0 if rests else self.step
            yield harness.Adapted(before, before if rests else None, updated=not rests, forwards=len(images))


@dataclass(frozen=True)
class Cautious:
    """An adapter that wants to see clean images first."""

    seen: int = 0

    def prepare(self, classifier: Network, batches: Iterable[Tensor]) -> Cautious:
        FITTED["cautious"] += 1
        return Cautious(len(next(iter(batches))))

    def adapt(self, classifier: Network, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for images in batches:
            logits = torch.zeros(len(images), 3)
            logits[:, self.seen % 3] = 1
            yield harness.Adapted(harness.Features(logits=logits), after=harness.Features(logits=logits))


@dataclass(frozen=True)
class UnrulyAdapter:
    """An adapter that misbehaves at its fourth batch, which is the second set's first."""

    how: str = "raises"

    def adapt(self, classifier: Network, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        for number, images in enumerate(batches):
            good = harness.Adapted(harness.Features(logits=torch.zeros(len(images), 3)))
            if number != 3:
                yield good
            elif self.how == "raises":
                raise RuntimeError("out of luck")
            elif self.how == "nan":
                yield harness.Adapted(harness.Features(logits=torch.full((len(images), 3), torch.nan)))
            elif self.how == "short":
                yield harness.Adapted(harness.Features(logits=torch.zeros(1, 3)))
            elif self.how == "number":
                yield 3
            elif self.how == "twice":
                yield good
                yield good
            elif self.how == "stops":
                return


@dataclass(frozen=True)
class Confident:
    """The mean level above the validation mean as a score; an accuracy, if told to say one; the peer's, if asked."""

    says: float | None = None
    how: str = "right"
    centre: float | None = None
    named: str = ""  # its definition

    def fit(self, data: harness.FitData) -> Confident:
        FITTED["confident"] += 1
        chunks = list(data.validation)
        assert all(chunk.labels.min() >= 0 for chunk in chunks)
        mean = torch.cat([chunk.penultimate for chunk in chunks])[:, 0].double().mean().item()
        return Confident(self.says, self.how, mean, self.named)

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        if self.how == "raises":
            raise ZeroDivisionError("by design")
        if self.how == "number":
            return 0.5
        if self.how == "large":
            return harness.Estimate(1.0, accuracy=1.5)
        level = target.features.take(np.arange(len(target))).penultimate[:, 0].double().mean().item()
        return harness.Estimate(
            level - self.centre,
            self.says,
            level - self.centre - 0.01,
            level - self.centre + 0.01,
            {"level": level},
            self.named,
        )


@dataclass(frozen=True)
class Peering:
    """The share of images on which the model and its peer predict the same class."""

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        whole = np.arange(len(target))
        mine, other = (
            features.take(whole).logits.argmax(dim=1) for features in (target.features, target.peer)
        )
        share = (mine == other).double().mean().item()
        return harness.Estimate(share, share)


@dataclass
class EasilyBored:
    """Look at one set, and no other; an accuracy, if told to say one."""

    says: float | None = None
    looked: bool = False

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        if self.looked:
            raise ValueError("bored by the second set")
        self.looked = True
        return harness.Estimate(0.3, self.says)


class Halves:
    """Say that one in two is right, whatever comes."""

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        return harness.Estimate(0.5, 0.5)


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    yield harness.EstimatorSpec("confident", Confident, needs={"penultimate", "validation"})
    yield harness.EstimatorSpec("halves", Halves)
    yield harness.EstimatorSpec("long", Halves, passes=21)
    of_three = harness.ReferenceModel("network", classes=3)
    yield harness.EstimatorSpec("of_three_classes", Halves, passes=30, reference=of_three)
    yield harness.EstimatorSpec("easily_bored", EasilyBored)
    yield harness.EstimatorSpec("peering", Peering, needs={"logits", "peer"})


@harness.hookimpl
def harness_adapters() -> Iterator[harness.AdapterSpec]:
    yield harness.AdapterSpec("bump", Bump)
    yield harness.AdapterSpec("cautious", Cautious, needs={"train"})
    yield harness.AdapterSpec("unruly_adapter", UnrulyAdapter)
    yield harness.AdapterSpec("slide", Slide)
    yield harness.AdapterSpec("brighten", Brighten)


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    yield harness.DatasetSpec("levels", levels)
    yield harness.DatasetSpec("unreadable", unreadable)
    yield harness.DatasetSpec("unlabelled", unlabelled)
    yield harness.DatasetSpec("partly", partly)
    yield harness.DatasetSpec("gone", gone)


def kept_epochs(request: harness.ModelRequest, **params: object) -> tuple[int, ...]:
    return (0, 1, 3, 4) if params.get("keeps", True) else ()


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    yield harness.ModelSpec("network", network, epochs=kept_epochs)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    yield harness.ScorerSpec("level", Level, needs={"penultimate"})
    yield harness.ScorerSpec("margin", Margin)
    yield harness.ScorerSpec("calibrated", Calibrated, needs={"penultimate", "validation"})
    yield harness.ScorerSpec("from_train", FromTrain, needs={"penultimate", "train"})
    yield harness.ScorerSpec("needs_linear", NeedsLinear, needs={"penultimate", "linear"})
    yield harness.ScorerSpec("gradient", Gradient, needs={"images", "gradients"})
    yield harness.ScorerSpec("turning", Level, needs={"penultimate"}, unstable=True)
    yield harness.ScorerSpec("whole", Whole, needs={"penultimate", "stream"})
    for how in ("nan", "shape", "undeclared", "infinite", "raises", "in_place"):
        yield harness.ScorerSpec(how, lambda how=how: Unruly(how))


@harness.hookimpl
def harness_probes() -> Iterator[harness.ProbeSpec]:
    yield harness.ProbeSpec("mean", Mean, unit="levels")
    yield harness.ProbeSpec("labels", Labels, needs={"labels"})
    yield harness.ProbeSpec("from_training", FromTraining, needs={"penultimate", "train"})
    yield harness.ProbeSpec("brightness", Brightness, needs={"inputs"})
    yield harness.ProbeSpec("unruly", UnrulyProbe)
