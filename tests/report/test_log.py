"""log.jsonl: which epochs are read back, and what else may stand between them."""

import json

import pytest
from made_up import make_epoch

from robcomp.errors import UserError
from robcomp.report.log import append, epochs


def test_a_repeated_epoch_counts_once_and_half_a_line_is_passed_over(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [make_epoch("dense", 1), make_epoch("dense", 2, loss=5.0), '{"event": "ep']
    lines += [make_epoch("dense", 2), make_epoch("sparse", 1)]
    log.write_text("\n".join([*lines, json.dumps({"event": "finished"})]))
    events = epochs(log)
    assert [(event["stage"], event["epoch"]) for event in events] == [("dense", 1), ("dense", 2), ("sparse", 1)]
    assert events[1]["loss"] == 1.0


def test_what_is_appended_is_read_back(tmp_path):
    log = tmp_path / "log.jsonl"
    written = [json.loads(make_epoch("dense", epoch)) for epoch in (1, 2)]
    append(log, written[0])
    append(log, {"event": "stage", "stage": "sparse"})
    append(log, written[1])
    assert epochs(log) == written


def test_no_log_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no log at"):
        epochs(tmp_path / "log.jsonl")
