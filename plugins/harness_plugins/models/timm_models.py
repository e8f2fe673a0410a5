"""timm's models, by name with pretrained weights from the hub, and any model as a checkpoint folder."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

REACHABLE_SECONDS = 5.0
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Arguments with which timm would read weights from elsewhere or wrap the model.
FORBIDDEN_ARGUMENTS = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "features_only",
    }
)
BUILDING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
ON_THE_HUB = "hf-hub:"  # timm's own prefix for a repository that is not a registered architecture


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer `timm:NAME` and `checkpoint:PATH`."""
    yield harness.ModelSpec(
        "timm",
        build_timm,
        cite="Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861",
        argument="NAME",
        architecture=True,
        check=check_name,
    )
    yield harness.ModelSpec(
        "checkpoint",
        build_checkpoint,
        argument="PATH",
        takes="folder",
        check=check_folder,
        rebuild=rebuild_from_timm,
    )


def build_checkpoint(request: harness.ModelRequest) -> harness.Model:
    """Load a folder with config.json and model.safetensors, as timm or a training here writes them."""
    return _load(_folder(request), request)


def check_folder(request: harness.ModelRequest) -> harness.Model:
    """Load the folder on the CPU: damaged, foreign and unfitting files are found before anything is trained."""
    return build_checkpoint(replace(request, device="cpu"))


def check_name(
    request: harness.ModelRequest,
    *,
    pretrained: bool = True,
    in_chans: int | None = None,
    **arguments: Any,
) -> None:
    """Raise InputError for a name that timm does not know, and for an argument that is not the user's to give."""
    from harness_plugins.models.timm_factory import refuse_unknown

    _refuse_forbidden(arguments)
    if not _name(request).startswith(ON_THE_HUB):
        refuse_unknown(request.argument)


def _folder(request: harness.ModelRequest) -> Path:
    if not request.argument:
        raise harness.InputError("checkpoint names no folder. Write checkpoint:PATH")
    return request.found(request.argument)


def _name(request: harness.ModelRequest) -> str:
    if not request.argument:
        raise harness.InputError("timm names no model. Write timm:NAME, as in timm:resnet18.a1_in1k")
    return request.argument


def build_timm(
    request: harness.ModelRequest,
    *,
    pretrained: bool = True,
    in_chans: int | None = None,
    **arguments: Any,
) -> harness.Model:
    """Load timm's model of that name with its own preprocessing; weights come from the hub or its cache.

    `hf-hub:OWNER/REPOSITORY` is a checkpoint folder on the hub: its config.json and model.safetensors are fetched.
    Without `pretrained` the weights are drawn from the request's seed. `in_chans` = 1 is for grey images. Further
    arguments are the architecture's own, such as `embed_dim` and `depth` of a transformer: a size that timm has no name
    for.
    """
    from harness_plugins.models.timm_factory import create, refuse_unknown

    name = _name(request)
    _refuse_forbidden(arguments)
    if name.startswith(ON_THE_HUB):
        if arguments:
            raise harness.InputError(
                f"{name!r} is built as its config.json says. Leave out {', '.join(arguments)}"
            )
        if request.num_outputs is not None:
            raise harness.InputError(
                f"{name!r} is a checkpoint of its own classes, not an architecture to train. Name the architecture"
            )
        repository = name.removeprefix(ON_THE_HUB)
        files = [_download(name, repository, file) for file in (CONFIG, WEIGHTS)]
        return _load(files[0].parent, request)
    refuse_unknown(name)
    wants_weights = pretrained and request.pretrained
    given: dict[str, Any] = {**arguments, "pretrained": wants_weights}
    if in_chans is not None:
        given["in_chans"] = in_chans
    if wants_weights:
        given["pretrained_cfg_overlay"] = {"file": str(_weights(name)), "custom_load": False}
    seed = request.seed if request.num_outputs is None else None
    asked = _asked(request, name)
    for key in sorted(asked.keys() & arguments.keys()):
        raise harness.InputError(
            f"timm has the argument {key!r}, which follows from the data and the preprocessing. Remove it"
        )
    with _blamed(name, arguments):
        model = create(name, given | asked, seed=seed)
    return replace(model, classifier=harness.opened(model.classifier, request.device, name=name))


@contextmanager
def _blamed(name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Name the user's own arguments, if there are any, in an error of building."""
    try:
        yield
    except BUILDING_ERRORS as error:
        if not arguments:
            raise
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise harness.InputError(
            f"timm cannot build {name!r} with {shown}: {' '.join(str(error).split())}"
        ) from None


def _asked(request: harness.ModelRequest, name: str) -> dict[str, Any]:
    """Translate a recipe's outputs and input size into timm's arguments."""
    from harness_plugins.models.timm_factory import has_fixed_size

    asked: dict[str, Any] = {}
    if request.num_outputs is not None:
        asked["num_classes"] = request.num_outputs
    if request.input_size is not None:
        asked["in_chans"] = request.input_size[0]
    size = request.input_size[1:] if request.input_size is not None else request.preprocessing.get("size")
    if size is not None and has_fixed_size(name):
        asked["img_size"] = size
    return asked


def _load(folder: Path, request: harness.ModelRequest) -> harness.Model:
    return harness.load_checkpoint(
        folder,
        catalogue=request.catalogue or harness.Registry.load(),
        device=request.device,
        unmarked=partial(rebuild_from_timm, size=request.preprocessing.get("size")),
    )


def _refuse_forbidden(arguments: Mapping[str, Any], *, of: str = "timm") -> None:
    for key in sorted(FORBIDDEN_ARGUMENTS & arguments.keys()):
        raise harness.InputError(
            f"{of} has the argument {key!r}, which a suite or checkpoint may not set. Remove it"
        )


def rebuild_from_timm(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], *, size: tuple[int, int] | None = None
) -> harness.Model:
    """Build the model that a config of timm's own form describes: the flat one of timm before 2023, too."""
    from harness_plugins.models.timm_factory import rebuild

    if not isinstance(config.get("architecture"), str):
        raise harness.InputError(
            f'{CONFIG} names no architecture. Add "architecture": "NAME", as timm names it'
        )
    arguments = dict(config.get("model_args") or {})
    _refuse_forbidden(arguments, of="model_args")
    stated = dict(config.get("pretrained_cfg") or config)
    if "num_classes" in config:
        stated["num_classes"] = config["num_classes"]
    channels = (stated.get("input_size") or (3,))[0]
    if channels != 3:
        arguments.setdefault("in_chans", channels)
    return rebuild(config["architecture"], arguments, stated, weights, size=size)


def _weights(name: str) -> Path:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    hub_id = config.hf_hub_id if config is not None else None
    if not hub_id:
        raise harness.InputError(
            f"timm has no weights on the hub for {name!r}. Choose a name from timm.list_pretrained(), or "
            "give a checkpoint folder: checkpoint:PATH"
        )
    return _download(name, hub_id, WEIGHTS)


def _download(name: str, repository: str, file: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    fix = "give a checkpoint folder with config.json and model.safetensors instead: checkpoint:PATH"
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    unreachable = harness.InputError(
        f"the weights of {name!r} are not in the local cache and the hub {constants.ENDPOINT} cannot be "
        f"reached: {fix}"
    )
    # The hub's client retries for most of a minute before it gives up, so check first.
    if constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT):
        raise unreachable
    try:
        return Path(hf_hub_download(repository, file))
    except LocalEntryNotFoundError:
        raise unreachable from None
    except EntryNotFoundError:
        raise harness.InputError(f"{repository} has no {file}; pickles are refused: {fix}") from None
    except (HfHubHTTPError, OSError) as error:
        raise harness.InputError(
            f"cannot fetch {repository}: {' '.join(str(error).split())}; {fix}"
        ) from None


def _is_reachable(address: str) -> bool:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(address, method="HEAD"), timeout=REACHABLE_SECONDS):
            return True
    except HTTPError:
        return True  # the server answered
    except (OSError, ValueError):
        return False
