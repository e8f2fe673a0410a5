"""A classifier made of any torch module that gives logits: its features are the input of its last linear layer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import harness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from torch import Tensor

TOLERANCE = 1e-5  # of the largest logit: up to this difference a layer's output is the module's
LIBRARIES = ("torch", "torchvision", "timm")  # their versions are in every key


class PlainModule(nn.Module):
    """A module with the interface of harness.Classifier. Logits are always the module's own output.

    `forward_features` runs the whole module once and returns penultimate features and logits side by side, (N, D + C);
    `forward_head` returns either part.
    """

    def __init__(self, network: nn.Module, head: str, num_features: int) -> None:
        super().__init__()
        self.network = network
        self.head_name = head
        self.num_features = num_features  # D

    def extra_repr(self) -> str:
        """Name the head: keys of features contain this text."""
        return f"head={self.head_name}"

    def forward_features(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to penultimate features and logits, (N, D + C)."""
        with _recorded(self.network, {self.head_name: self.get_classifier()}) as calls:
            logits: Tensor = self.network(images)
        penultimate = calls[self.head_name][0].flatten(1)  # (N, D)
        return torch.cat([penultimate, logits], dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the penultimate features (N, D), or the logits (N, C)."""
        return features[:, : self.num_features] if pre_logits else features[:, self.num_features :]

    def get_classifier(self) -> nn.Module:
        """Return the layer whose input are the penultimate features."""
        return self.network.get_submodule(self.head_name)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to logits (N, C)."""
        logits: Tensor = self.network(images)
        return logits


def logits_of(
    network: nn.Module, preprocessing: harness.Preprocessing, request: harness.ModelRequest
) -> Tensor:
    """Return the logits of two random images. Raises InputError for a module that gives something else."""
    size = preprocessing.input_size
    try:
        with torch.inference_mode():
            logits = network(_images(preprocessing, request.device))
    except Exception as error:  # a user's code may raise anything
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise harness.InputError(f"{request.name!r} cannot forward images of {size}: {line}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 2:
        shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else ""
        raise harness.InputError(
            f"{request.name!r} gives a {type(logits).__name__}{shape} for 2 images. Return one tensor of logits (N, C)"
        )
    return logits


def head_of(
    network: nn.Module, preprocessing: harness.Preprocessing, request: harness.ModelRequest, named: str | None
) -> tuple[str, int]:
    """Find the layer whose input are the penultimate features (N, D): the linear one that gives the logits.

    Return its name and D. If no layer gives the logits exactly, as before a scale, it is the only one of their shape.

    Raises InputError, with the candidates, if no layer or more than one may be meant.
    """
    layers = {name: layer for name, layer in network.named_modules() if name and _is_linear(layer)}
    if named is not None:
        modules = dict(network.named_modules())
        if named not in modules:
            raise harness.unknown_name("layer", named, layers, valid_label="Linear layers")
        layers = {named: modules[named]}
    with torch.inference_mode(), _recorded(network, layers) as calls:
        logits = network(_images(preprocessing, request.device))
    usable = {
        name: (given.flatten(1), made.flatten(1))
        for name, (given, made) in calls.items()
        if len(given) == len(logits) and given[0].numel() == given.shape[1]  # one vector per image
    }
    if named is not None:
        if named not in usable:
            raise harness.InputError(f"the layer {named!r} of {request.name!r} has no input of shape (N, D)")
        return named, usable[named][0].shape[1]
    fitting = [name for name, (_, made) in usable.items() if made.shape == logits.shape]
    giving = [name for name in fitting if _equal(usable[name][1], logits)]
    found = giving or fitting
    if len(found) != 1:
        count = "several linear layers may give" if found else "no single linear layer gives"
        listed = list(found or layers)
        shown = harness.shortened(listed)
        raise harness.InputError(
            f"{count} the {logits.shape[1]} logits of {request.name!r}: {shown or 'it has none'}. Name the layer whose "
            f'input are its features, as in head = "{listed[-1] if listed else "fc"}"'
        )
    return found[0], usable[found[0]][0].shape[1]


def code_of(network: nn.Module, code: ModuleType, file: Path | None) -> str:
    """Digest the user's code: the file or module that is named, and that of every part of the network."""
    kinds = {type(part).__module__: type(part) for part in network.modules()}
    own = [kinds[name] for name in sorted(kinds) if name.partition(".")[0] not in LIBRARIES]
    named = harness.script_digest(file) if file is not None else harness.source_digest(code)
    return " ".join(
        [named, *(harness.source_digest(kind) for kind in own if kind.__module__ != code.__name__)]
    )


@contextmanager
def _recorded(network: nn.Module, layers: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Record the input and the output of layers while the network runs."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_layer: object, given: tuple[Any, ...], made: Any) -> None:
            if given and isinstance(given[0], torch.Tensor) and isinstance(made, torch.Tensor):
                calls[name] = given[0], made

        return record

    handles = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _images(preprocessing: harness.Preprocessing, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, *preprocessing.input_size), dtype=torch.uint8, generator=generator)
    return preprocessing.normalise(images.to(device))


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=TOLERANCE * max(float(other.abs().amax()), 1e-12))
