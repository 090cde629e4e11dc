"""Files that an earlier version wrote, one of each kind of network, are read and answer as they did then.

written_before/ holds them with what their networks said of two fixed images. They were made by the last version before
the package was laid out in rooms (commit 7b91da3), and are not to be made again.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from robcomp import artifact
from robcomp.artifact import NetworkSpec
from robcomp.artifact.format import unpack
from robcomp.models.parameterisation import KINDS, form_of
from robcomp.models.resnet import ResNetConfig

FOLDER = Path(__file__).parent / "written_before"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())


def test_there_is_a_file_of_every_kind() -> None:
    kinds = {form_of(artifact.load(path)[0]).kind for path in FOLDER.glob("*.rcz")}
    assert kinds == set(KINDS)
    assert {path.stem for path in FOLDER.glob("*.rcz")} == set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_from_before_answers_as_it_did(name: str) -> None:
    model, spec, bits = artifact.load(FOLDER / f"{name}.rcz")
    assert (spec.shape, spec.classes, bits) == ((1, 16, 16), 3, ANSWERS[name]["bits"])
    assert sum(int(p.count_nonzero()) for p in model.parameters()) == ANSWERS[name]["nonzero"]
    images = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    with torch.no_grad():
        logits = model(images).double()
    assert torch.allclose(logits, torch.tensor(ANSWERS[name]["logits"], dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_what_a_model_got_later_is_written_only_where_it_is_set(tmp_path: Path) -> None:
    """So a network that an earlier version could build packs to the bytes that it had then."""
    for stem in ("cifar", "imagenet"):
        spec = NetworkSpec(ResNetConfig(width=0.05, stem=stem, weights="a.pt", new_head=True), (3, 32, 32), 3)
        artifact.save(spec.build(), spec, 32, tmp_path / "model.rcz")
        settings = unpack(tmp_path / "model.rcz")[1]["model"]
        assert list(settings) == ["kind", "name", "width", "channels", "mean", "std", "weights", "depth"] + (
            ["stem"] if stem == "imagenet" else []
        )
        assert settings["weights"] is None
        model, read, _ = artifact.load(tmp_path / "model.rcz")
        assert read.model == ResNetConfig(width=0.05, stem=stem)
        assert isinstance(model.pool, nn.MaxPool2d) == (stem == "imagenet")
