"""Do DSE, DSMI and the ER entropy of a model's features go with its accuracy? Over independently trained models.

    OOD_HARNESS_DATA=... python benchmarks/studies/correlation.py

Sixteen networks, of eight shapes × two seeds, each a training of its own with one checkpoint, all as long: along one
training both would rise with time, which confounds. One suite with [[probes]] measures them on 2,000 test images of
Fashion-MNIST. Writes correlation.csv, correlation.md and correlation.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Panel, draw, options

import harness
from harness.probes.table import probe_table
from harness.probes.text import as_csv, as_markdown

SHAPES = {
    "mlp-2": 'model = "mlp"\nmodel_params = { hidden = [2] }',
    "mlp-8": 'model = "mlp"\nmodel_params = { hidden = [8] }',
    "mlp-32": 'model = "mlp"\nmodel_params = { hidden = [32] }',
    "mlp-128": 'model = "mlp"\nmodel_params = { hidden = [128, 128] }',
    "cnn-2": 'model = "cnn"\nmodel_params = { width = 2 }',
    "cnn-4": 'model = "cnn"\nmodel_params = { width = 4 }',
    "cnn-8": 'model = "cnn"\nmodel_params = { width = 8 }',
    "cnn-16": 'model = "cnn"\nmodel_params = { width = 16 }',
}
SEEDS = 2
RECIPE = """
schema = 1
name = "{name}"
{shape}
lr = 0.002
epochs = 3
batch_size = 64
[preprocessing]
input_size = [1, 28, 28]
mean = [0.286]
std = [0.353]
"""
SUITE = """
schema = 1
name = "correlation"
scorers = []
[id]
dataset = "hf:fashion_mnist"
train = {{ split = "train", limit = 10000 }}
test = {{ split = "test", limit = 2000 }}
{models}
{probes}
"""
PROBES = (
    'name = "dse"',
    'name = "dse"\nsigma = "neighbour"',
    'name = "dsmi"',
    'name = "dsmi"\nsigma = "neighbour"',
    'name = "vmf_entropy"',
    'name = "class_entropy"',
)


def main() -> None:
    arguments = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        suite = write_suite(Path(folder))
        harness.run(str(suite), out=Path(folder) / "out", device=arguments.device, progress=True)
        table = probe_table([Path(folder) / "out"])
    arguments.tables.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("csv", as_csv(table)), ("md", as_markdown(table))):
        (arguments.tables / f"correlation.{suffix}").write_text(text, encoding="utf-8")
    frame = table.frame.assign(kind=table.frame["model"].str.partition("-")[0])
    panels = [
        Panel(
            probe,
            "value",
            "accuracy",
            "kind",
            lambda f, name=probe: f["probe"] == name,
            probe,
            "accuracy",
            scatter=True,
        )
        for probe in dict.fromkeys(frame["probe"])
    ]
    draw(frame, panels, arguments.pictures / "correlation.png")
    print(as_markdown(table))


def write_suite(folder: Path) -> Path:
    """Write a recipe a model, and the suite that names them all."""
    models = []
    for number, (label, shape) in enumerate(SHAPES.items()):
        (folder / f"{label}.toml").write_text(RECIPE.format(name=label, shape=shape), encoding="utf-8")
        seeds = [number * SEEDS + i for i in range(SEEDS)]
        models.append(f'[[models]]\nrecipe = "{folder / label}.toml"\nlabel = "{label}"\nseeds = {seeds}')
    probes = "\n".join(f"[[probes]]\n{probe}" for probe in PROBES)
    suite = folder / "correlation.toml"
    suite.write_text(SUITE.format(models="\n".join(models), probes=probes), encoding="utf-8")
    return suite


if __name__ == "__main__":
    main()
