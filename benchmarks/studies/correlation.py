"""Do DSE, DSMI and the ER entropy of a model's features go with its accuracy? Over independently trained models.

    OOD_HARNESS_DATA=... python benchmarks/studies/correlation.py

Sixteen networks of sixteen shapes, each a training of its own with one checkpoint, all as long: along one training
both would rise with time, which confounds. One suite with [[probes]] measures them on 2,000 test images of
Fashion-MNIST. Writes correlation.csv, correlation.md and correlation.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Panel, draw, options

import harness
from harness.evaluations.probes.table import probe_table, probe_text
from harness.reports.text import as_csv, as_markdown

HIDDEN = ([2], [4], [8], [16], [32], [64], [128], [128, 128])  # of perceptrons
WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24)  # of convnets
SHAPES = {
    **{f"mlp-{'-'.join(map(str, hidden))}": ("mlp", f"hidden = {hidden}") for hidden in HIDDEN},
    **{f"cnn-{width}": ("cnn", f"width = {width}") for width in WIDTHS},
}
RECIPE = """
schema = 1
name = "{name}"
model = "{model}"
model_params = {{ {shape} }}
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
train = {{ split = "train", limit = {train} }}
test = {{ split = "test", limit = {test} }}
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
    arguments = options(__doc__, train=10_000, test=2000)
    with tempfile.TemporaryDirectory() as folder:
        suite = write_suite(Path(folder), train=arguments.train, test=arguments.test)
        harness.run(str(suite), out=Path(folder) / "out", device=arguments.device, progress=True)
        table = probe_table([Path(folder) / "out"])
    arguments.tables.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("csv", as_csv(probe_text(table))), ("md", as_markdown(probe_text(table)))):
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
    print(as_markdown(probe_text(table)))


def write_suite(folder: Path, **limits: int) -> Path:
    """Write a recipe a model, and the suite that names them all."""
    models = []
    for seed, (label, (model, shape)) in enumerate(SHAPES.items()):
        recipe = RECIPE.format(name=label, model=model, shape=shape)
        (folder / f"{label}.toml").write_text(recipe, encoding="utf-8")
        models.append(f'[[models]]\nrecipe = "{folder / label}.toml"\nlabel = "{label}"\nseeds = [{seed}]')
    probes = "\n".join(f"[[probes]]\n{probe}" for probe in PROBES)
    suite = folder / "correlation.toml"
    text = SUITE.format(models="\n".join(models), probes=probes, **limits)
    suite.write_text(text, encoding="utf-8")
    return suite


if __name__ == "__main__":
    main()
