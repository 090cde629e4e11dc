"""Files of weights: what they may hold, and the sentence for each that cannot be read."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import CifarVGG
from importing_helpers import CONFIGS, fresh, refused, saved, trained
from safetensors.torch import save_file
from torch import nn

from robcomp.models.importing import load_weights


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model", "net", "params"])
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.backbone.", "net."])
def test_containers_and_prefixes(container: str, prefix: str, tmp_path: Path) -> None:
    source, model = trained(CONFIGS["lenet"]), fresh(CONFIGS["lenet"])
    tensors = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    content = {"epoch": 3, "optimizer": {"lr": 0.1}, "best": torch.tensor(0.9), container: tensors}
    story = load_weights(model, CONFIGS["lenet"], saved(tmp_path, content))
    assert story == f"trained.pt: 8 tensors, matched by the names of robcomp under '{prefix}'"
    assert torch.equal(model.fc1.weight, source.fc1.weight)


def test_a_container_in_a_container(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": {"state_dict": trained(CONFIGS["lenet"]).state_dict()}})
    assert "8 tensors" in load_weights(fresh(CONFIGS["lenet"]), CONFIGS["lenet"], path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_by_name(value: float, tmp_path: Path) -> None:
    tensors = CifarVGG().state_dict()
    tensors["features.3.bias"][2] = value
    assert "NaN or infinity in features.3.bias;" in refused(CONFIGS["vgg16"], saved(tmp_path, tensors))


def test_numbers_beyond_float32_are_refused(tmp_path: Path) -> None:
    tensors = trained(CONFIGS["lenet"]).double().state_dict()
    tensors["fc1.weight"][0, 0] = 1e300
    assert "infinity in fc1.weight" in refused(CONFIGS["lenet"], saved(tmp_path, tensors))


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tensors = trained(CONFIGS["lenet"]).state_dict()
    tensors["fc2.bias"] = tensors["fc2.bias"].to(torch.int8)
    assert "fc2.bias: file torch.int8, model torch.float32" in refused(CONFIGS["lenet"], saved(tmp_path, tensors))


def whole(folder: Path, name: str) -> bytes:
    """The bytes of a good file."""
    if name.endswith(".safetensors"):
        save_file(trained(CONFIGS["lenet"]).state_dict(), folder / "whole.safetensors")
        return (folder / "whole.safetensors").read_bytes()
    torch.save(trained(CONFIGS["lenet"]).state_dict(), folder / "whole.pt")
    return (folder / "whole.pt").read_bytes()


@pytest.mark.parametrize("name", ["file.pt", "file.safetensors"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "copy it again"),
        (lambda data: data[:9], "copy it again"),
        (lambda data: b"some words\n", "copy it again"),
        (lambda data: bytes(reversed(data)), "copy it again"),
    ],
    ids=["empty", "half", "start", "text", "reversed"],
)
def test_damaged_files(name: str, content: Callable[[bytes], bytes], sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content(whole(tmp_path, name)))
    message = refused(CONFIGS["lenet"], tmp_path / name)
    assert sentence in message
    assert str(tmp_path / name) in message


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory); check the path" in refused(CONFIGS["lenet"], tmp_path / "x.pt")
    assert "No such file" in refused(CONFIGS["lenet"], tmp_path / "x.safetensors")
    assert "is a folder" in refused(CONFIGS["lenet"], tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [(nn.Linear(2, 2), "torch.nn.modules.linear.Linear"), ({"best": np.float64(0.9)}, "numpy"), (print, "print")],
)
def test_no_code_is_run_from_a_file(content: object, named: str, tmp_path: Path) -> None:
    message = refused(CONFIGS["lenet"], saved(tmp_path, {"state_dict": content}))
    assert named in message
    assert "torch.save(model.state_dict(), FILE)" in message


def test_a_plain_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": np.ones(3)}))
    assert "no checkpoint of torch" in refused(CONFIGS["lenet"], tmp_path / "plain.pt")


def test_files_without_tensors(tmp_path: Path) -> None:
    assert "holds a list, not a state dict" in refused(CONFIGS["lenet"], saved(tmp_path, [torch.ones(3)]))
    assert "holds no tensors" in refused(CONFIGS["lenet"], saved(tmp_path, {"epoch": 3}))
