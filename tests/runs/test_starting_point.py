"""Runs that start from trained weights, and what is refused before anything is trained."""

import json
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, RUN, SHAPE, run
from torch import nn

from robcomp import artifact
from robcomp.cli.parser import main
from robcomp.models.lenet import LeNetConfig

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
