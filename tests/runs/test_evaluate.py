"""`robcomp evaluate`: other suites, external networks, stopping and going on; the verdict in a run's report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, RUN, SHAPE, run, typed
from torch import nn

from robcomp import artifact
from robcomp.cli.parser import main
from robcomp.evaluation.evaluator import Evaluator
from robcomp.models.lenet import LeNetConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sandbox", "no_curves")]

TRAINED = ["method=nat", "attack.batch_size=7"]
EXTERNAL = [
    *(o for o in RUN if not o.startswith(("schedule", "training", "dataset.val"))),
    "model.weights=net.safetensors",
]


def external(path: str = "net.safetensors") -> nn.Module:
    torch.manual_seed(3)
    model = LeNetConfig(width=0.1).build(SHAPE, CLASSES)
    save_file(model.state_dict(), path)
    return model


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("evaluation-*.json"))]


def counts(accuracy: dict[str, Any]) -> dict[str, int]:
    """How many images are correct, by the name of the accuracy."""
    entries = accuracy["attacks"] | {name: accuracy[name] for name in ("clean", "worst_case")}
    return {name: entry["correct"] for name, entry in entries.items()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 2
    return capsys.readouterr().err


def test_a_cumulative_suite_by_one_word() -> None:
    folder = run(TRAINED)
    settings = ["attack=autoattack", "attack.attacks.square.queries=20", "attack.attacks.apgd_ce.steps=5"]
    fewer = ["attack.attacks.apgd_t.steps=5", "attack.attacks.fab_t.steps=5", "attack.verdict=20"]
    assert main(["evaluate", f"run={folder}", *settings, *fewer]) == 0
    (found,) = evaluations(folder)
    accuracy = found["accuracy"]
    assert list(accuracy["attacks"]) == ["apgd_ce", "apgd_t", "fab_t", "square"]  # by cost, queries last
    values = [accuracy[name]["correct"] for name in ("clean", "worst_case")]
    values[1:1] = [entry["correct"] for entry in accuracy["attacks"].values()]
    assert values == sorted(values, reverse=True)
    assert accuracy["attacks"]["apgd_t"]["attacked"] == accuracy["attacks"]["apgd_ce"]["correct"]
    assert found["verdict"]["images"] == accuracy["clean"]["correct"]


def test_distances_lie_beside_the_outcomes() -> None:
    folder = run(TRAINED)
    suite = ["~attack.attacks.fgsm", "~attack.attacks.pgd", "+attack.attacks.fab={eps: 0.1, steps: 10}"]
    assert main(["evaluate", f"run={folder}", *suite]) == 0
    with np.load(next(folder.glob("evaluation-*.npz"))) as arrays:
        distance, correct, clean = arrays["fab.distance"], arrays["fab"], arrays["clean"]
    assert np.array_equal(correct, distance > np.float32(0.1))
    assert (distance[~clean] == 0).all()
    assert (distance[clean] > 0).all()
    assert np.isfinite(distance[clean]).any()
    (found,) = evaluations(folder)
    median = float(np.median(distance[clean]))
    assert found["accuracy"]["attacks"]["fab"]["median_distance"] == (
        pytest.approx(median) if np.isfinite(median) else None
    )


def test_an_evaluation_is_recognised_and_fresh_does_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(TRAINED)
    again = ["evaluate", f"run={folder}", "attack=atmc"]
    assert main(again) == 0
    assert "already evaluated" not in capsys.readouterr().out
    assert main(again) == 0
    assert "already evaluated" in capsys.readouterr().out
    assert main([*again, "fresh=true"]) == 0
    assert "already evaluated" not in capsys.readouterr().out
    assert len(evaluations(folder)) == 1


def test_an_evaluation_in_another_folder_leaves_the_runs_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(TRAINED)
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    again = ["evaluate", f"run={folder}", "attack=atmc", "out=there/too"]
    assert main(again) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before
    (page,) = Path("there/too").glob("evaluation-*.json")
    assert f"evaluation: {page}" in capsys.readouterr().out.replace("\n", "")
    (found,) = evaluations(page.parent)
    assert found["run"] == report(folder)["run"]
    assert found["evaluation"]["overrides"] == ["attack=atmc"]
    with np.load(page.with_suffix(".npz")) as arrays:
        assert arrays["worst_case"].sum() == found["accuracy"]["worst_case"]["correct"]
    assert {path.suffix for path in page.parent.iterdir()} <= {".json", ".npz", ".lock"}
    assert main(again) == 0
    assert "already evaluated" in capsys.readouterr().out
    assert main(again[:-1]) == 0
    assert "already evaluated" not in capsys.readouterr().out
    assert [path.name for path in folder.glob("evaluation-*.json")] == [page.name]
    assert "out= is given 2 times" in refused(capsys, *again[1:], "out=elsewhere")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_stopped_evaluation_goes_on(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    whole = run([*TRAINED, "out=whole"])
    lines = {
        "train": ["train", *typed("nat", *TRAINED[1:]), "out=stopped"],
        "evaluate": ["evaluate", f"run={whole}", "attack=atmc", "attack.batch_size=7", "attack.verdict=0"],
    }
    if command == "evaluate":
        assert main(lines[command]) == 0
        wanted = evaluations(whole)[0]["accuracy"]
        next(whole.glob("evaluation-*.json")).unlink()
    else:
        wanted = report(whole)["accuracy"]
    calls, attack = [], Evaluator._attack

    def counted(self: Evaluator, name: str, *rest: Any) -> Any:
        calls.append(name)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return attack(self, name, *rest)

    monkeypatch.setattr(Evaluator, "_attack", counted)
    batches, stop = -(-wanted["clean"]["correct"] // 7), 3
    assert batches > 1
    assert main(lines[command]) == 130
    (part,) = Path().rglob("*.part.npz")
    stop = -1
    assert main(lines[command]) == 0
    assert not part.exists()
    found = evaluations(whole)[0] if command == "evaluate" else report(next(Path("stopped").glob("tiny-*/*")))
    assert counts(found["accuracy"]) == counts(wanted)
    assert len(calls) == 2 * batches + 1  # the interrupted batch twice, all others once


def test_an_external_network(capsys: pytest.CaptureFixture[str]) -> None:
    model = external()
    assert main(["evaluate", *EXTERNAL]) == 0
    (folder,) = Path("outputs/tiny-lenet-external").iterdir()
    found = report(folder)
    assert (found["run"]["method"], found["stages"], found["run"]["train_epochs"]) == ("external", [], 0)
    assert found["accuracy"]["attacks"]["pgd"]["attack"]["steps"] == 2
    packed = artifact.load(folder / "model.rcz")[0].state_dict()
    assert all(torch.equal(tensor, packed[name]) for name, tensor in model.state_dict().items())
    assert (folder / "report.md").is_file()
    capsys.readouterr()
    assert main(["evaluate", *EXTERNAL]) == 0
    assert "already evaluated" in capsys.readouterr().out
    assert main(["evaluate", f"run={folder}", "attack=atmc"]) == 0  # and then it is a run like others
    assert main(["compare", str(folder), str(folder)]) == 0


def test_other_weights_are_another_evaluation() -> None:
    external()
    assert main(["evaluate", *EXTERNAL]) == 0
    save_file({k: v + 0.01 for k, v in external().state_dict().items()}, "net.safetensors")
    assert main(["evaluate", *EXTERNAL]) == 0
    assert len(list(Path("outputs/tiny-lenet-external").iterdir())) == 2


def test_one_run_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    folders = ",".join(str(run([*TRAINED, f"seed={seed}"])) for seed in (0, 1))
    assert "takes one run directory, given 2" in refused(capsys, f"run={folders}")


def test_what_cannot_be_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run=DIR" in refused(capsys, *RUN)
    assert "model.weights=net.safetensors" in refused(capsys, *EXTERNAL)
    save_file({"a": torch.zeros(2)}, "net.safetensors")
    assert "net.safetensors" in refused(capsys, *EXTERNAL)
    assert not list(Path("outputs").rglob("report.json"))


def test_the_report_of_a_run_has_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run([*TRAINED, "attack.verdict=20"])
    found = report(folder)["verdict"]
    assert found["images"] == report(folder)["accuracy"]["clean"]["correct"] < 20
    assert found["trusted"] in (None, False)  # so few images cannot speak for the figures
    assert {check["name"] for check in found["checks"]} == {
        "stronger_attacks",
        "black_box_beats_white_box",
        "random_output",
        "zero_gradients",
        "probabilities",
        "one_step_beats_many",
        "correct_at_any_eps",
    }
    assert "## Verdict" in (folder / "report.md").read_text()
    assert "verdict" not in report(run(TRAINED))


def test_two_classes_pass_through_every_suite() -> None:
    """DLR needs more classes: its fall-backs must serve."""
    overrides = ["dataset.classes=2", "dataset.name=pair"]
    write_pair(Path("pair"))
    folder = run([*TRAINED, *overrides, "data_dir=pair"])
    small = [f"attack.attacks.{name}.steps=3" for name in ("pgd_100", "cw", "apgd_ce", "apgd_dlr", "fab")]
    assert main(["evaluate", f"run={folder}", "attack=thesis", *small, "attack.attacks.square.queries=5"]) == 0
    small = [f"attack.attacks.{name}.steps=3" for name in ("apgd_ce", "apgd_t", "fab_t")]
    assert main(["evaluate", f"run={folder}", "attack=autoattack", *small, "attack.attacks.square.queries=5"]) == 0
    assert len(evaluations(folder)) == 2


def write_pair(folder: Path) -> None:
    """`pair.safetensors`: the tiny images of the first two classes."""
    from safetensors import safe_open
    from tiny import write_data

    folder.mkdir()
    write_data(folder)
    with safe_open(folder / "tiny.safetensors", "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        metadata = stored.metadata() | {"classes": json.dumps(["a", "b"])}
    for part in ("train", "test"):
        kept = tensors[f"{part}_labels"] < 2
        for kind in ("images", "labels"):
            tensors[f"{part}_{kind}"] = tensors[f"{part}_{kind}"][kept]
    save_file(tensors, folder / "pair.safetensors", metadata)
