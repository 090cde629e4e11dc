"""`rc.load`: a model.rcz or a run directory as a network in eval mode, with the names of its classes."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, SHAPE

import robcomp as rc
from robcomp import artifact
from robcomp.artifact import NetworkSpec
from robcomp.models.lenet import LeNetConfig

BEFORE = Path(__file__).parents[1] / "artifact" / "written_before"
LENET = LeNetConfig(width=0.1)


def packed(path: Path, *names: str) -> int:
    spec = NetworkSpec(LENET, SHAPE, CLASSES, names)
    torch.manual_seed(0)
    return artifact.save(spec.build(), spec, 32, path)


def test_a_file_and_its_folder_are_the_same_network_in_eval_mode(tmp_path: Path) -> None:
    packed(tmp_path / "model.rcz", "ash", "birch", "größe M")
    x = torch.rand(2, *SHAPE)
    answers = []
    for path in (tmp_path / "model.rcz", str(tmp_path / "model.rcz"), tmp_path, f"{tmp_path}/"):
        model = rc.load(path)
        assert model.class_names == ("ash", "birch", "größe M")
        assert not any(module.training for module in model.modules())
        answers.append(model(x))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_classes_of_files_from_before_and_without_names_are_numbers_and_cost_no_byte(tmp_path: Path) -> None:
    assert rc.load(BEFORE / "dense.rcz").class_names == ("0", "1", "2")
    plain, numbers = packed(tmp_path / "plain.rcz"), packed(tmp_path / "numbers.rcz", "0", "1", "2")
    assert plain == numbers
    assert rc.load(tmp_path / "plain.rcz").class_names == ("0", "1", "2")
    assert packed(tmp_path / "named.rcz", "ash", "birch", "maple") - plain < 50


def test_a_run_names_its_classes(finished: tuple[Path, Path]) -> None:
    assert rc.load(finished[0]).class_names == ("band 0", "band 1", "band 2")


def test_names_that_are_not_one_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        NetworkSpec(LENET, SHAPE, CLASSES, ("ash", "birch"))


def test_loading_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    rc.load(BEFORE / "factored.rcz")
    assert torch.equal(torch.rand(3), wanted)


def test_what_is_no_network_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(rc.UserError, match=r"cannot read the model file .*absent\.rcz: .*check the path"):
        rc.load(tmp_path / "absent.rcz")
    with pytest.raises(rc.UserError, match=r"holds no model\.rcz; give the directory of a finished run"):
        rc.load(tmp_path)
    shutil.copy(__file__, tmp_path / "model.rcz")
    with pytest.raises(rc.UserError, match="is not a robcomp model file"):
        rc.load(tmp_path)
