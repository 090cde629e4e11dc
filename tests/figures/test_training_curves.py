"""The training curves: that a picture is made, and what is said where none can be."""

import sys
from pathlib import Path

import pytest
from made_up import make_epoch

from robcomp.errors import UserError
from robcomp.figures.training import training_curves


def test_a_picture_is_drawn_also_without_attack_or_held_out_images(tmp_path):
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.jsonl"
    none = {"robust": None, "val_robust": None, "val_clean": None}
    log.write_text("\n".join(make_epoch(*place, **none) for place in (("dense", 1), ("dense", 2), ("sparse", 1))))
    target = training_curves(log, tmp_path / "figures" / "curves.png")
    assert target.read_bytes().startswith(b"\x89PNG")


def test_no_log_no_epoch_and_no_matplotlib_are_each_one_sentence(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    with pytest.raises(UserError, match="no log at"):
        training_curves(log, tmp_path / "curves.png")
    log.write_text("")
    with pytest.raises(UserError, match="no finished epoch"):
        training_curves(log, tmp_path / "curves.png")
    log.write_text(make_epoch("dense", 1))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'robcomp\[figures\]'"):
        training_curves(log, tmp_path / "curves.png")


def test_a_users_own_pyplot_is_left_alone(tmp_path: Path) -> None:
    import matplotlib

    log, before = tmp_path / "log.jsonl", matplotlib.rcParams["backend"]
    log.write_text(make_epoch("dense", 1) + "\n")
    matplotlib.use("svg")
    try:
        assert training_curves(log, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.rcParams["backend"] = before
