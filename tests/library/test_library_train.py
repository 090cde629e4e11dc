"""`rc.train` and `rc.read_report`: the command's run, in silence, with nothing left behind but its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RUN

import robcomp as rc
from robcomp.report.schema import Report

SPARSE = [o for o in RUN if not o.startswith(("schedule.factored", "schedule.quantised"))]
DENSE = [o for o in SPARSE if not o.startswith("schedule.sparse")]

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")


@pytest.mark.slow
def test_a_run_is_trained_in_silence_and_read_back(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    run = rc.train(*SPARSE, "method=al0", "method.ratio=0.2")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert run.folder.parent == Path("outputs/tiny-lenet-al0")
    assert run.report.run.method == "al0"
    assert run.report.density.total <= 0.2
    assert run.report == rc.read_report(run.folder) == rc.read_report(str(run.folder / "report.json"))
    assert not run.model.training
    assert run.model is run.model
    assert run.model.class_names == ("band 0", "band 1", "band 2")
    nonzero = sum(int(p.count_nonzero()) for p in run.model.parameters() if p.dim() > 1)
    assert nonzero == run.report.size.nonzero

    before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    again = rc.train(*SPARSE, "method=al0", "method.ratio=0.2")
    assert again == run
    assert {
        path: path.stat().st_mtime_ns for path in run.folder.iterdir() if path.name != "lock"
    }.items() <= before.items()


def test_progress_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    run = rc.train(*DENSE, "method=nat", progress=True)
    shown = capsys.readouterr().out
    assert "stages: dense 2 epochs" in shown
    assert str(run.folder) in shown.replace("\n", "")


def test_what_cannot_be_trained_gets_one_sentence() -> None:
    for overrides, sentence in (
        (["method=al1"], "unknown method 'al1'.*Did you mean l1 or alr or al0"),
        (["method.ratioo=0.1"], "ratioo"),
        (["method=nat", "schedule.sparse.epochs=3"], "changes nothing here"),
        ([["method=al0", "seed=1"]], "is no override; give each as text of its own: train"),
        (["seed=0,1"], "sweep"),
    ):
        with pytest.raises(rc.UserError, match=sentence) as caught:
            rc.train(*overrides)
        assert "\n" not in str(caught.value)
    assert not list(Path().glob("outputs/*"))


def test_an_absent_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(rc.UserError, match="no report at"):
        rc.read_report(tmp_path)


def test_each_call_starts_over_where_it_is_asked_to() -> None:
    for _ in range(2):
        run = rc.train(*SPARSE, "method=al0", "method.ratio=0.2", "fresh=true")
        assert [stage.cached for stage in run.report.stages] == [False, False]


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_training_has_gradients_wherever_it_is_called(without_gradients: Callable[[], Any]) -> None:
    with without_gradients():
        assert rc.train(*SPARSE, "method=al0", "method.ratio=0.2").report.accuracy.clean.images == 20


def test_a_run_of_an_earlier_report_is_run_again_from_its_stages() -> None:
    run = rc.train(*SPARSE, "method=al0", "method.ratio=0.2")
    page = run.folder / "report.json"
    page.write_text(page.read_text().replace(Report.SCHEMA, "robcomp-report/2"))
    again = rc.train(*SPARSE, "method=al0", "method.ratio=0.2")
    assert again.folder == run.folder
    assert [stage.cached for stage in again.report.stages] == [True, True]
    assert again.report.accuracy.worst_case == run.report.accuracy.worst_case
