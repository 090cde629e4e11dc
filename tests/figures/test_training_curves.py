"""The training curves: which epochs are read, that a picture is made, and what is said where none can be."""

import json
import sys

import pytest

from robcomp.errors import UserError
from robcomp.figures.training import epochs, training_curves


def _event(stage: str, epoch: int, **values: float | None) -> str:
    base = {"event": "epoch", "stage": stage, "epoch": epoch, "loss": 1.0, "clean": 0.9, "robust": 0.5}
    return json.dumps({**base, "val_clean": 0.9, "val_robust": 0.5, **values})


def test_a_repeated_epoch_counts_once_and_half_a_line_is_passed_over(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [_event("dense", 1), _event("dense", 2, loss=5.0), '{"event": "ep', _event("dense", 2), _event("sparse", 1)]
    log.write_text("\n".join([*lines, json.dumps({"event": "finished"})]))
    events = epochs(log)
    assert [(event["stage"], event["epoch"]) for event in events] == [("dense", 1), ("dense", 2), ("sparse", 1)]
    assert events[1]["loss"] == 1.0


def test_a_picture_is_drawn_also_without_attack_or_held_out_images(tmp_path):
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.jsonl"
    none = {"robust": None, "val_robust": None, "val_clean": None}
    log.write_text("\n".join([_event("dense", 1, **none), _event("dense", 2, **none), _event("sparse", 1, **none)]))
    target = training_curves(log, tmp_path / "figures" / "curves.png")
    assert target.read_bytes().startswith(b"\x89PNG")


def test_no_log_no_epoch_and_no_matplotlib_are_each_one_sentence(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    with pytest.raises(UserError, match="no log at"):
        training_curves(log, tmp_path / "curves.png")
    log.write_text("")
    with pytest.raises(UserError, match="no finished epoch"):
        training_curves(log, tmp_path / "curves.png")
    log.write_text(_event("dense", 1))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'robcomp\[figures\]'"):
        training_curves(log, tmp_path / "curves.png")
