"""Runs that start from trained weights, and what is refused before anything is trained."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, RUN, SHAPE, run, typed
from torch import nn

from robcomp import artifact
from robcomp.artifact import NetworkSpec
from robcomp.artifact.format import unpack
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.models.base import ModelConfig
from robcomp.models.lenet import LeNetConfig
from robcomp.models.parameterisation import Dense, form_of
from robcomp.models.resnet import ResNetConfig
from robcomp.models.wideresnet import WideResNetConfig
from robcomp.runs import weights

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
    arguments = [o for o in RUN if not o.startswith(("schedule", "training", "dataset.val"))]
    assert main(["evaluate", *arguments, f"model.weights={tmp_path / 'given.pt'}", "model.new_head=true"]) == 2
    assert "leaves the last layer of the network untrained" in capsys.readouterr().err


FORMS = {
    "dense": ["method=al0", "method.ratio=0.2"],
    "low_rank": ["method=alr", "method.ratio=0.5"],
    "factored": ["method=atmc", "method.ratio=0.2", "method.bits=4"],
}


@pytest.fixture(params=FORMS)
def compressed(request: pytest.FixtureRequest, sandbox: Path) -> Path:
    """A finished run whose network is stored in that form."""
    folder = run(FORMS[request.param])
    assert form_of(artifact.load(folder / "model.rcz")[0]).kind == request.param
    return folder


@pytest.mark.slow
def test_a_packed_network_is_multiplied_out_to_start_from(compressed: Path) -> None:
    model = artifact.load(compressed / "model.rcz")[0]
    folder = run([*UNTRAINED, f"model.weights={compressed / 'model.rcz'}"])
    start, _, bits = artifact.load(folder / "model.rcz")
    assert (form_of(start), bits) == (Dense(), 32)
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(start(x), model(x), atol=1e-5)
        assert not torch.allclose(start(x), LeNetConfig(width=0.1).build(SHAPE, CLASSES)(x), atol=1e-2)
    if form_of(model) == Dense():
        assert same(model.state_dict(), packed(folder))
    again = run(["method=alr", "method.ratio=0.5", f"model.weights={compressed / 'model.rcz'}"])  # a form of its own
    assert form_of(artifact.load(again / "model.rcz")[0]).kind == "low_rank"


@pytest.mark.slow
def test_a_packed_network_is_evaluated_as_it_is_stored(compressed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another machine's file: the sizes, operations and accuracies of the run that wrote it, and the same bytes."""
    Path("theirs.bin").write_bytes((compressed / "model.rcz").read_bytes())  # told by its content, not its name
    arguments = [o for o in RUN if not o.startswith(("schedule", "training", "dataset.val"))]
    assert main(["evaluate", *arguments, "model.weights=theirs.bin"]) == 0
    (folder,) = Path("outputs/tiny-lenet-external").iterdir()
    assert (folder / "model.rcz").read_bytes() == (compressed / "model.rcz").read_bytes()
    ours, theirs = (json.loads((path / "report.json").read_text()) for path in (folder, compressed))
    for block in ("size", "density", "macs"):
        assert ours[block] == theirs[block]
    for name in ("clean", "worst_case"):
        assert ours["accuracy"][name]["correct"] == theirs["accuracy"][name]["correct"]
    said = capsys.readouterr().out
    assert "theirs.bin: 8 tensors, matched by the names of robcomp" in said
    assert "multiplied out" not in said


NETWORK = LeNetConfig("lenet", width=0.1)


def written(folder: Path, config: ModelConfig, shape: tuple[int, int, int] = SHAPE, classes: int = CLASSES) -> Path:
    spec = NetworkSpec(config, shape, classes)
    artifact.save(spec.build(), spec, 32, folder / "model.rcz")
    return folder / "model.rcz"


@pytest.mark.parametrize(
    ("held", "chosen", "said"),
    [
        (
            WideResNetConfig("wideresnet", 0.05, widen=2, mean=[0.5], std=[0.25]),
            NETWORK,
            "does not hold the network of model=lenet as it is set, but wideresnet; give model=wideresnet "
            "model.width=0.05 model.mean=[0.5] model.std=[0.25] model.widen=2.",
        ),
        (
            LeNetConfig("lenet", 0.1, conv_relu=True),
            LeNetConfig("lenet", 0.2),
            "as it is set, but one of other settings; give model.width=0.1 model.conv_relu=true.",
        ),
        (
            ResNetConfig("resnet18", 0.05),
            ResNetConfig("resnet18", 0.05, stem="imagenet"),
            "but one of other settings; give model.stem=cifar.",
        ),
    ],
)
def test_a_packed_network_that_is_not_the_model_says_what_to_set(
    held: ModelConfig, chosen: ModelConfig, said: str, tmp_path: Path
) -> None:
    path, spec = written(tmp_path, held), NetworkSpec(chosen, SHAPE, CLASSES)
    for take in (lambda: weights.start_from(spec.build(), chosen, path), lambda: weights.as_stored(spec, path)):
        with pytest.raises(UserError, match=re.escape(f"{path} does not hold the network of model=")) as error:
            take()
        assert said in str(error.value)


def test_what_only_training_knows_may_differ(tmp_path: Path) -> None:
    """Dropout, the name and where the weights of the file once came from."""
    path = written(tmp_path, WideResNetConfig("other", 0.05, channels=1, widen=2, dropout=0.3))
    chosen = WideResNetConfig("wideresnet", 0.05, widen=2, weights=str(path))
    model = chosen.build(SHAPE, CLASSES)
    assert weights.start_from(model, chosen, path).endswith("by the names of robcomp")
    assert same(artifact.load(path)[0].state_dict(), model.state_dict())


def test_a_packed_network_of_other_classes_or_images(tmp_path: Path) -> None:
    path = written(tmp_path, NETWORK, classes=5)
    chosen = LeNetConfig("lenet", 0.1, weights=str(path))
    with pytest.raises(UserError, match=r"tells 5 classes apart and this one 3: model\.new_head=true"):
        weights.as_stored(NetworkSpec(chosen, SHAPE, CLASSES), path)
    model = chosen.build(SHAPE, CLASSES)
    story = weights.start_from(model, replace(chosen, new_head=True), path)
    assert "but its last layer (fc2.bias, fc2.weight), which starts anew" in story
    assert torch.equal(model.conv1.weight, artifact.load(path)[0].conv1.weight)
    with pytest.raises(UserError, match=r"fc1\.weight: file \[50, 5\], model \[50, 80\]"):
        weights.start_from(NETWORK.build((1, 28, 28), CLASSES), NETWORK, path)


def test_a_damaged_packed_network_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, NETWORK)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.rcz"):
        weights.start_from(NETWORK.build(SHAPE, CLASSES), NETWORK, path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (typed("alr", "method.ratio=0.05"), "rank 1 in every layer takes"),
        (typed("al0", "method.ratio=1e-5"), "keeps none of the network's"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_training(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *overrides]) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()
