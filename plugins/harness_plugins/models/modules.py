"""Plain torch modules of a user's own code, without a plugin: `module = "my_models.py:build"` in a suite."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from torch import nn

FORM = 'module = "my_models.py:build" or module = "package.module:build"'


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer `module:FILE.py:NAME`."""
    yield harness.ModelSpec(
        "module", build_module, argument="FILE.py:NAME or PACKAGE.MODULE:NAME", check=check_module
    )


def build_module(request: harness.ModelRequest, *, head: str | None = None, **params: Any) -> harness.Model:
    """Call NAME of a Python file or module, and wrap the torch module that it returns: it gives logits (N, C).

    The file is looked for beside the suite's file, then in the working folder. NAME is a function, a class, or the
    torch module itself. `params` go to it, and the model's seed if it has a parameter `seed`. `head` names the layer
    whose input are the penultimate features; by default it is the linear layer that gives the logits.

    The preprocessing is what the suite states, then that of the module's `pretrained_cfg` or `default_cfg`. Raises
    InputError if neither states size, mean and std.
    """
    from harness_plugins.models.plain_module import PlainModule, code_of, head_of, logits_of

    place, name, file = _place(request)
    folders = [file.parent] if file is not None else [request.folder or Path.cwd(), Path.cwd()]
    with _importable(folders):
        code = _imported(request, place, file)
        if not hasattr(code, name):
            offered = [
                key for key, value in vars(code).items() if callable(value) and not key.startswith("_")
            ]
            raise harness.unknown_name("function", name, offered, valid_label=f"In {place}")
        network = _called(request, getattr(code, name), params)
        preprocessing = _preprocessing(request, network)
        network.eval().to(request.device)
        logits = logits_of(network, preprocessing, request)
        plain = PlainModule(network, *head_of(network, preprocessing, request, head))
        source = f"{name} {sorted(params.items())} {code_of(network, code, file)}"
    opened = harness.opened(plain, request.device, name=request.name)
    return harness.Model(opened, preprocessing, num_classes=logits.shape[1], source=source)


def check_module(request: harness.ModelRequest, *, head: str | None = None, **params: Any) -> harness.Model:
    """Build the module: its code, its parameters and its layers are known to work before anything is trained."""
    return build_module(request, head=head, **params)


def _place(request: harness.ModelRequest) -> tuple[str, str, Path | None]:
    """Read the argument: the place as it is written, the name, and the file if the place is one."""
    place, _, name = request.argument.rpartition(":")
    if not place or not name:
        raise harness.InputError(f"{request.name!r} names no function. Write {FORM}")
    file = request.found(place).resolve() if place.endswith(".py") else None
    if file is not None and not file.is_file():
        beside = f"{request.folder} or " if request.folder is not None else ""
        raise harness.InputError(f"there is no file {place!r} in {beside}{Path.cwd()}. Write {FORM}")
    return place, name, file


@contextlib.contextmanager
def _importable(folders: list[Path]) -> Iterator[None]:
    """Let code import its neighbours, as a script does, while it is imported and called."""
    before = list(sys.path)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = before


def _imported(request: harness.ModelRequest, place: str, file: Path | None) -> ModuleType:
    try:
        if file is None:
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(f"ood_harness_module_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise harness.InputError(f"{file} cannot be imported. Write {FORM}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look up their module here
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise harness.InputError(
            f"the import of {place!r} for {request.name!r} raised {_line(error)}"
        ) from error
    return module


def _called(request: harness.ModelRequest, built: Any, params: Mapping[str, Any]) -> nn.Module:
    """Return the torch module that the user's function builds, with weights drawn from the seed."""
    from torch import nn

    if not isinstance(built, nn.Module):
        try:
            takes_seed = "seed" in inspect.signature(built).parameters
            with harness.seeded(request.seed):
                built = built(**({"seed": request.seed} if takes_seed else {}) | dict(params))
        except harness.HarnessError:
            raise
        except Exception as error:  # a user's code may raise anything
            raise harness.InputError(f"{request.name!r} raised {_line(error)}") from error
    if not isinstance(built, nn.Module):
        raise harness.InputError(
            f"{request.name!r} returns a {type(built).__name__}. Return a torch module that gives logits (N, C)"
        )
    return built


def _preprocessing(request: harness.ModelRequest, network: Any) -> harness.Preprocessing:
    """Combine what the suite states with the module's own data configuration, in timm's form."""
    found = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    own = {
        key: value
        for key, value in (found if isinstance(found, dict) else vars(found)).items()
        if value is not None
    }
    stated = dict(request.preprocessing)
    size = stated.pop("size", None) or tuple(own.get("input_size", ()))[1:]
    values = {**own, **stated}
    unsaid = [key for key in ("mean", "std") if key not in values]
    if not size or unsaid:
        lacking = ", ".join([*([] if size else ["size"]), *unsaid])
        raise harness.InputError(
            f"nothing states {lacking} of the images that {request.name!r} was trained on. Add to its [[models]]: "
            "preprocessing = { size = 224, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225], "
            'interpolation = "bilinear", crop_pct = 0.875 }, with its own values'
        )
    optional = {key: values[key] for key in ("interpolation", "crop_pct", "crop_mode") if key in values}
    return harness.Preprocessing(
        (len(values["mean"]), *size),
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        source="its pretrained_cfg" if own.keys() & {"input_size", "mean", "std"} else "the suite",
        assumed=tuple(key for key in ("interpolation", "crop_pct") if key not in optional),
        **optional,
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
