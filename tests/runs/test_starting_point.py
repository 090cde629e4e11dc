"""Runs that start from trained weights, and what is refused before anything is trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, RUN, SHAPE, run
from torch import nn

from robcomp import artifact
from robcomp.artifact.format import unpack
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.models.lenet import LeNetConfig
from robcomp.models.resnet import ResNetConfig

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")

UNTRAINED = ["method=da", "schedule.dense.epochs=0"]


def weights_file(path: Path, seed: int) -> nn.Module:
    """The network of `tiny.RUN` with random weights, written as a checkpoint under a wrapper's prefix."""
    torch.manual_seed(seed)
    model = LeNetConfig(width=0.1).build(SHAPE, CLASSES)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, path)
    return model


def packed(folder: Path) -> dict[str, torch.Tensor]:
    return artifact.load(folder / "model.rcz")[0].state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_a_run_starts_from_the_weights_of_the_file(tmp_path: Path) -> None:
    given = weights_file(tmp_path / "given.pt", seed=7)
    start = run([*UNTRAINED, f"model.weights={tmp_path / 'given.pt'}"])
    assert same(given.state_dict(), packed(start))
    assert not same(given.state_dict(), packed(run(UNTRAINED)))
    trained = run(["method=da", "schedule.dense.epochs=1", f"model.weights={tmp_path / 'given.pt'}"])
    assert not same(given.state_dict(), packed(trained))


def test_the_packed_network_needs_the_file_no_more(tmp_path: Path) -> None:
    given = weights_file(tmp_path / "given.pt", seed=7)
    folder = run([*UNTRAINED, f"model.weights={tmp_path / 'given.pt'}"])
    (tmp_path / "given.pt").unlink()
    assert same(given.state_dict(), packed(folder))
    assert main(["evaluate", f"run={folder}", "attack.attacks.pgd.steps=1"]) == 0


def test_the_content_of_the_file_makes_the_run_and_not_its_name(tmp_path: Path) -> None:
    for name, seed in (("one.pt", 1), ("two.pt", 2)):
        weights_file(tmp_path / name, seed)
    (tmp_path / "copy.pt").write_bytes((tmp_path / "one.pt").read_bytes())
    one, two, copy = (run([*UNTRAINED, f"model.weights={tmp_path / name}"]) for name in ("one.pt", "two.pt", "copy.pt"))
    assert one == copy != two
    keys = [json.loads((folder / "report.json").read_text())["stages"][0]["key"] for folder in (one, two)]
    assert keys[0] != keys[1]


LARGE = [  # a residual network with the stem of ImageNet on 64x64 colour images
    "dataset.name=large",
    "dataset.shape=[3,64,64]",
    "dataset.classes=2",
    "dataset.val=8",
    "dataset.test_subset=4",
    "model=resnet18",
    "model.width=0.0625",
    "model.stem=imagenet",
    "training.batch_size=8",
    *(f"schedule.{stage}.epochs=1" for stage in ("dense", "sparse", "factored", "quantised")),
]


@pytest.fixture
def large(tmp_path: Path) -> str:
    """The override that finds 16 + 4 images of 64x64 pixels in two classes, dark and bright."""
    labels = torch.arange(24) % 2
    pixels = (60 + 120 * labels.view(-1, 1, 1, 1) + torch.randint(0, 60, (24, 3, 64, 64))).to(torch.uint8)
    split = {
        "train_images": pixels[:20],
        "test_images": pixels[20:],
        "train_labels": labels[:20],
        "test_labels": labels[20:],
    }
    tensors = {name: tensor.clone() for name, tensor in split.items()}
    metadata = {"classes": json.dumps(["dark", "bright"]), "source": "made up", "official": "true"}
    save_file(tensors, tmp_path / "large.safetensors", metadata)
    return f"data_dir={tmp_path}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["method=atmc", "method=alr", "method=dnr method.scheme=channel", "method=admm method.scheme=filter"]
)
def test_methods_train_pack_and_report_a_network_with_the_stem_of_imagenet(method: str, large: str) -> None:
    folder = run([large, *LARGE, "method.ratio=0.5", *method.split()])
    model, spec, _ = artifact.load(folder / "model.rcz")
    assert (spec.model.stem, spec.shape) == ("imagenet", (3, 64, 64))
    assert isinstance(model.pool, nn.MaxPool2d)
    report = json.loads((folder / "report.json").read_text())
    stem, first = report["macs"]["layers"][:2]
    assert (stem["name"], stem["dense"]) == ("stem.conv", 32 * 32 * 4 * 3 * 49)
    assert (first["name"], first["dense"]) == ("blocks.0.conv1.conv", 16 * 16 * 4 * 4 * 9)
    assert 0 < report["density"]["total"] <= 0.51
    assert main(["evaluate", f"run={folder}", "attack.attacks.pgd.steps=1"]) == 0


def test_a_new_head_is_trained_on_the_layers_of_another_data_set(large: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = ResNetConfig(width=0.0625, stem="imagenet").build((3, 224, 224), 1000).state_dict()
    torch.save(given, tmp_path / "imagenet.pt")
    start = [large, *LARGE, *UNTRAINED, f"model.weights={tmp_path / 'imagenet.pt'}"]
    with pytest.raises(UserError, match=r"tells 1000 classes apart and this one 2: model\.new_head=true"):
        run(start)
    folder = run([*start, "model.new_head=true"])
    held = packed(folder)
    assert held["fc.weight"].shape == (2, 32)
    assert same({name: tensor for name, tensor in given.items() if not name.startswith("fc.")}, held)
    assert "new_head" not in unpack(folder / "model.rcz")[1]["model"]


def test_what_an_untrained_head_would_answer_is_not_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_file(tmp_path / "given.pt", seed=7)
    arguments = [o for o in RUN if not o.startswith(("schedule", "training"))]
    assert main(["evaluate", *arguments, f"model.weights={tmp_path / 'given.pt'}", "model.new_head=true"]) == 2
    assert "leaves the last layer of the network untrained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=alr", "method.ratio=0.05"], "rank 1 in every layer takes"),
        (["method=al0", "method.ratio=1e-5"], "keeps none of the network's"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_training(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *RUN, *overrides]) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()
