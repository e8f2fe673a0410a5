"""Compares the logits of the harness with the model's own, for every family of timm.

The smallest model of each timm module gets random weights and random BatchNorm statistics, and goes through extraction.
Its logits are compared with `model(images)`: they must be equal, or the model is refused with a reason. The table is
results/timm-models.csv. `--modules` restricts it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from harness.base.cache import Cache
from harness.base.errors import HarnessError
from harness.base.progress import progress_bar
from harness.contract.features import LinearHead
from harness.contract.preprocessing import Preprocessing
from harness.contract.selection import Selection
from harness.contract.specs import Model
from harness.data.streams import Stream
from harness.models.extract import extract
from harness.models.loaded import LoadedModel

TABLE = Path(__file__).resolve().parents[2] / "results" / "timm-models.csv"
TOLERANCE = 1e-5  # of the largest logit
CLASSES, IMAGES = 7, 4
COLUMNS = ["module", "model", "parameters", "size", "penultimate", "head", "difference", "verdict"]


class Noise:
    """Images of noise, and no labels."""

    digest, labels = "noise", np.full(IMAGES, -1)

    def __init__(self, size: tuple[int, int]) -> None:
        self._shape = (*size, 3)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 256, self._shape, dtype=np.uint8)

    def identity(self, index: int) -> bytes:
        """Return the index, since every image is another."""
        return bytes([index])


def main() -> int:
    """Compare, write the table, and return 1 if a model is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modules", nargs="*", help="timm's modules. Default: all")
    parser.add_argument("--table", type=Path, default=TABLE, help="the CSV file")
    arguments = parser.parse_args()
    modules = arguments.modules or timm.list_modules()
    rows = []
    with progress_bar(total=len(modules), description="timm", unit="module") as bar:
        for module in modules:
            name = smallest(module)
            rows.append({"module": module} | ({"verdict": "no models"} if name is None else compared(name)))
            table = pd.DataFrame(rows, columns=COLUMNS)
            table.to_csv(arguments.table, index=False, float_format="%.3g")  # what is known so far
            bar.update()
    print(table["verdict"].str.partition(":")[0].value_counts().to_string())
    return int(table["verdict"].str.startswith("wrong").any())


def smallest(module: str) -> str | None:
    """Return the module's model with the fewest parameters, counted without allocating them."""
    sizes = {}
    for name in timm.list_models(module=module):
        with torch.device("meta"):
            try:
                sizes[name] = sum(
                    p.numel() for p in timm.create_model(name, num_classes=CLASSES).parameters()
                )
            except Exception:  # some models cannot be built on the meta device
                continue
    return min(sizes, key=lambda name: sizes[name]) if sizes else None


def compared(name: str) -> dict[str, object]:
    """Extract noise with a model, and compare the logits with those of its forward."""
    torch.manual_seed(0)
    try:
        module = randomised(timm.create_model(name, num_classes=CLASSES).eval())
        channels, height, width = module.pretrained_cfg["input_size"]
        model = LoadedModel(
            Model(
                module,
                Preprocessing((channels, height, width), mean=(0.5,) * channels, std=(0.5,) * channels),
                CLASSES,
            ),
            "cpu",
        )
        stream = Stream.of(Selection.all_of("noise", Noise((height, width))), batch_size=IMAGES)
        with tempfile.TemporaryDirectory() as folder:
            (features,) = extract(model, stream, Cache(Path(folder))).features.chunks()
            logits, penultimate = features.logits.clone(), features.penultimate.shape[1]
            head = (
                "linear" if isinstance(model.head, LinearHead) else "none" if model.head is None else "other"
            )
    except HarnessError as error:
        return {"model": name, "verdict": f"refused: {error}"}
    except Exception as error:  # timm itself cannot run it on these images
        return {"model": name, "verdict": f"refused: {type(error).__name__}: {' '.join(str(error).split())}"}
    batch = model.model.preprocessing.batch(stream.images(np.arange(IMAGES)))
    with torch.inference_mode():
        own = module(model.model.preprocessing.normalise(batch))
    difference = float((own - logits).abs().max() / own.abs().max())
    return {
        "model": name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "size": height,
        "penultimate": penultimate,
        "head": head,
        "difference": difference,
        "verdict": "equal" if difference <= TOLERANCE else "wrong",
    }


def randomised(module: Any) -> Any:
    """Draw vectors and statistics anew, since fresh ones are 0 or 1 and hide a map that is left out."""
    with torch.no_grad():
        for layer in norms(module):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def norms(module: Any) -> Iterator[Any]:
    """Yield the BatchNorm layers with statistics."""
    return (m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None)


if __name__ == "__main__":
    sys.exit(main())
