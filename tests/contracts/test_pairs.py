"""Every data set with every model, by the data set's own defaults shortened to seconds: it trains and is above chance.

The methods take turns over the pairs. Images are made up, in the shape of the data set: four kinds of stripes in noise.
"""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
import whole
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from robcomp.report.schema import Report
from robcomp.runs.train import train
from robcomp.settings.choices import choices
from robcomp.settings.compose import compose_config

CLASSES, TRAIN, TEST, HELD_OUT = 4, 144, 48, 16
METHODS = choices("method")
WIDTHS = {
    "lenet": 0.2,
    "resnet18": 0.125,
    "resnet34": 0.125,
    "resnet50": 0.1,
    "wideresnet": 0.0625,
    "mobilenetv2": 0.25,
}
# The published rule of ALR leaves some layers at rank 1, from which a few steps do not recover; and half of the weights
# moved at each of 20 rewirings within so few steps leaves no time to learn.
REWIRED = ["method.ratio=0.75", "method.rate=0.1", "schedule.dense.epochs=8", "schedule.dense.milestones=[6]"]
OWN = {
    "da": [],
    "nat": [],
    "alr": ["method.ratio=0.75", "method.rule=greedy"],
    "dnr": REWIRED,
    "dnr_c": REWIRED,
    "sparse_momentum": REWIRED,
}
SHAPES = {"digits": [1, 28, 28], "mnist": [1, 28, 28], "tiny_imagenet": [3, 64, 64]}
PAIRS = list(product(choices("dataset"), choices("model")))
FAST, EACH_SHAPE = {"lenet", "vgg16", "wideresnet"}, {"mnist", "cifar10", "tiny_imagenet"}
# The deep networks take most of the time: on data of each shape (grey, of one of them), and on all others in
# `make test-combinations`
DEEP = {"resnet34", "resnet50", "mobilenetv2"}
TRIED = [
    (data, model)
    for data, model in PAIRS
    if whole.PRODUCT or model in FAST or (data in EACH_SHAPE and not (data == "mnist" and model in DEEP))
]
SETTINGS = [
    f"dataset.classes={CLASSES}",
    f"dataset.val={HELD_OUT}",
    "training.batch_size=16",
    "training.attack.steps=1",
    "attack.attacks.pgd.steps=2",
    "attack.verdict=0",
    *(f"~attack.attacks.{name}" for name in ("margin", "apgd_t", "square")),
    "threat.eps=4/255",
    "device=cpu",
    "training.precision=float32",
    "schedule.dense.epochs=4",
    "schedule.dense.milestones=[3]",
    *(
        f"schedule.{stage}.{field}"
        for stage in ("sparse", "factored", "quantised")
        for field in ("epochs=1", "milestones=[]")
    ),
]


def images(shape: list[int], count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise over horizontal stripes: the class is their width and their brightness, so mirroring changes nothing."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randint(0, 60, (count, *shape), generator=g)
    rows = torch.arange(shape[1])[:, None]
    for pixel, label in zip(pixels, labels.tolist(), strict=True):
        pixel += 40 * label + 70 * (rows // (1 + 2 * label) % 2)
    return pixels.to(torch.uint8), labels


def write(folder: Path, dataset: str, shape: list[int]) -> list[str]:
    """The data set's images under `folder`, as the user would have them; the overrides that point there."""
    parts = {name: images(shape, count, seed) for seed, (name, count) in enumerate([("train", TRAIN), ("test", TEST)])}
    if dataset != "folder":
        tensors = {f"{part}_images": pixels for part, (pixels, _) in parts.items()}
        tensors |= {f"{part}_labels": labels for part, (_, labels) in parts.items()}
        metadata = {"classes": json.dumps([f"stripes {i}" for i in range(CLASSES)]), "official": "false"}
        save_file(tensors, folder / f"{dataset}.safetensors", metadata)
        return []
    for part, (pixels, labels) in parts.items():
        for index, (pixel, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            path = folder / "photos" / part / f"stripes {label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixel.permute(1, 2, 0).numpy()).save(path)
    return [f"dataset.path={folder / 'photos'}", "dataset.shape=[3,32,32]"]


def turn(dataset: str, model: str) -> str:
    """The method of a pair: another one for each data set of a model, and for each model of a data set."""
    return METHODS[PAIRS.index((dataset, model)) % len(METHODS)]


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(("dataset", "model"), TRIED, ids=["-".join(pair) for pair in TRIED])
def test_a_pair_trains_by_its_defaults(dataset: str, model: str, tmp_path: Path) -> None:
    method = turn(dataset, model)
    shape = SHAPES.get(dataset, [3, 32, 32])
    overrides = [
        f"dataset={dataset}",
        f"model={model}",
        f"method={method}",
        *SETTINGS,
        *write(tmp_path, dataset, shape),
        f"model.width={WIDTHS.get(model, 0.125)}",
        f"out={tmp_path / 'out'}",
        f"data_dir={tmp_path}",
        *OWN.get(method, ["method.ratio=0.75"]),
    ]
    config = compose_config(overrides)
    assert config.dataset.shape == shape
    report = Report.read(train(config, overrides, Console(quiet=True)) / "report.json")
    assert report.accuracy.clean.interval[0] > 1 / CLASSES
    assert report.accuracy.clean.value >= report.accuracy.worst_case.value
    assert report.macs.executed <= report.macs.dense


def test_every_method_has_its_turn() -> None:
    assert len(PAIRS) >= 49
    assert {turn(*pair) for pair in TRIED} == set(METHODS)
    for model in choices("model"):
        turns = [turn(dataset, model) for dataset in choices("dataset")]
        assert len(set(turns)) == min(len(turns), len(METHODS))
