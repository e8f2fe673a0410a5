"""Builds timm's models, with seeded weights and the preprocessing of their configuration.

Importing timm takes seconds, so this module is imported only to build a timm model.
"""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Any

import timm
from timm.data.config import resolve_data_config

import harness
from harness_plugins.models.configuration import preprocessing_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Parts = tuple["nn.Module", harness.Preprocessing, int]  # classifier, its preprocessing, number of classes


def create(
    name: str, arguments: Mapping[str, Any], *, stated: Mapping[str, Any], seed: int | None = 0
) -> Parts:
    """Build timm's model of that name; `arguments` are timm's own, `stated` overrides its data configuration.

    Weights that are not pretrained are drawn from the seed; None uses the current random state.
    Raises InputError for an unknown name.
    """
    refuse_unknown(name)
    with contextlib.nullcontext() if seed is None else harness.seeded(seed):
        model: Any = timm.create_model(name, **arguments)
    config = resolve_data_config(  # type: ignore[no-untyped-call]
        pretrained_cfg={**model.pretrained_cfg, **stated}, model=model
    )
    return model, preprocessing_from(config, in_chans=arguments.get("in_chans")), int(model.num_classes)


def has_fixed_size(name: str) -> bool:
    """Return whether the architecture needs its image size, like transformers with position embeddings."""
    config = timm.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def refuse_unknown(name: str) -> None:
    """Raise InputError with the nearest names unless timm knows the architecture and its tag, if any."""
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        kind, wrong, valid = "timm architecture", architecture, timm.list_models()
    elif tag and name not in timm.list_pretrained():
        kind, wrong, valid = "timm model", name, timm.list_pretrained(f"{architecture}.*")
    else:
        return
    nearest = difflib.get_close_matches(wrong, valid, n=5, cutoff=0.5)
    hint = f"Nearest: {', '.join(nearest)}" if nearest else "timm.list_models() lists them all"
    raise harness.InputError(f"no {kind} named {wrong!r}. {hint}")
