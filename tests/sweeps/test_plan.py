"""What runs will cost: what is counted, what is timed, what is taken as done."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny import typed

from robcomp.artifact import NetworkSpec
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.evaluation import verdict
from robcomp.evaluation.cost import macs
from robcomp.report.results import PlanResult
from robcomp.settings.compose import compose_config
from robcomp.sweeps import plan as plans
from robcomp.sweeps import sweep
from robcomp.sweeps.pace import Pace

pytestmark = pytest.mark.usefixtures("sandbox")

NAT, AL0 = typed("nat", "dataset.test_subset=20"), typed("al0")
DA = typed("da", "schedule.dense.epochs=250")  # 1,000 steps
TRAIN = 64  # images of the data set of `tiny` beside the 16 held out


@pytest.fixture
def at_a_pace(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A pace of 1 ms a pass in training and 2 ms in attacks; what was timed, in order."""
    timed: list[str] = []

    def training(run: object, stage: object) -> Pace:
        timed.append(stage.name)  # type: ignore[attr-defined]
        return Pace(1e-3, 1000)

    def evaluation(run: object, batch_size: int) -> Pace:
        timed.append("attacks")
        return Pace(2e-3, 3000)

    monkeypatch.setattr("robcomp.sweeps.pace.training", training)
    monkeypatch.setattr("robcomp.sweeps.pace.evaluation", evaluation)
    return timed


def planned(*words: str, jobs: int = 1) -> PlanResult:
    return sweep.planned(sweep.expand(words), Console(quiet=True), jobs)


def test_passes_are_counted_one_by_one(at_a_pace: list[str]) -> None:
    """nat: a forward and a backward pass, 2 epochs of 4 steps of 16; validation: 16 images, clean, under an attack of 2
    steps (4 passes) and classified; the attacks: clean, and fgsm (2) and pgd (4) on the share of correct images, which
    the network itself then classifies."""
    (run,) = planned(*NAT).runs
    (stage,) = run.stages
    assert stage.passes == 2 * 64 * 2 + 2 * 16 * (2 + 4)
    assert run.evaluation.passes == pytest.approx(20 * (1 + plans.CLEAN * (3 + 5)))
    assert stage.seconds == pytest.approx(1e-3 * stage.passes)
    assert run.evaluation.seconds == pytest.approx(2e-3 * run.evaluation.passes)
    assert run.seconds == pytest.approx(stage.seconds + run.evaluation.seconds + plans.AROUND)
    assert (run.memory, run.evaluation.images, at_a_pace) == (3000, 20, ["dense", "attacks"])
    network = NetworkSpec(compose_config(NAT).model, (1, 16, 16), 3, ("a", "b", "c")).build().eval()
    assert run.flops == pytest.approx(2 * macs(network, (1, 16, 16)).dense * run.passes)


def test_a_stage_that_runs_share_counts_once(at_a_pace: list[str]) -> None:
    one, two = planned(*AL0, "method.ratio=0.3,0.5").runs
    assert [stage.cached for stage in one.stages] == [False, False]
    assert [stage.cached for stage in two.stages] == [True, False]
    assert (two.stages[0].passes, two.stages[1].passes) == (0, one.stages[1].passes)
    assert (one.overrides, two.overrides) == (["method.ratio=0.3"], ["method.ratio=0.5"])
    assert at_a_pace == ["dense", "sparse", "attacks"]  # another ratio takes the same time


def test_a_network_of_another_width_has_a_pace_of_its_own(at_a_pace: list[str]) -> None:
    planned(*NAT, "model.width=0.1,0.2")
    assert at_a_pace == ["dense", "attacks"] * 2


def test_batch_statistics_count_where_there_is_batch_norm(at_a_pace: list[str]) -> None:
    """Those of averaged weights: after each of 2 epochs a first batch, and of 64 images a tenth, that is one batch; in
    the end a first batch and all 4."""
    words = [*typed("nat"), "training.weight_average=0.9"]
    (plain,) = planned(*words).runs
    (normed,) = planned(*words, "model=resnet18", "model.width=0.05").runs
    assert normed.stages[0].passes - plain.stages[0].passes == 2 * (2 * (16 + 16) + 16 + 64)


def test_the_guess_grows_with_adversarial_training(at_a_pace: list[str]) -> None:
    def guessed(*words: str) -> float:
        (run,) = planned(*words).runs
        assert not run.evaluation.known
        return run.evaluation.withstanding

    assert guessed(*NAT) == 0
    assert guessed(*AL0, "method.ratio=0.3") == pytest.approx(plans.ROBUST * 16 / (16 + plans.HALF))
    assert guessed(*AL0, "method.ratio=0.3", "schedule.dense.epochs=248") == pytest.approx(plans.ROBUST / 2)


def test_the_verdicts_attacks_count(at_a_pace: list[str]) -> None:
    """On 16 of the 18 images that are taken to be correct, some on the share of them that withstands."""
    (without,), (judged,) = (planned(*DA, f"attack.verdict={count}").runs for count in (0, 20))
    every = judged.evaluation.passes - without.evaluation.passes
    assert judged.evaluation.withstanding == pytest.approx(plans.ROBUST / 2)
    share = judged.evaluation.withstanding / plans.CLEAN
    steps, queries = verdict.STEPS, verdict.QUERIES
    strong = (2 * steps + 2) + (9 * (2 * steps + 1) + 2) + (queries + 2) + 2 * (80 + 1)
    assert every == pytest.approx(18 * (3 + 41 + share * strong + 40 + 3 * 12 + 1))


def test_a_run_that_cannot_be_planned_does_not_hide_the_others(at_a_pace: list[str]) -> None:
    """It will say itself what is wrong: here, that the data set has fewer classes than an attack aims at."""
    jobs = [NAT, [*NAT, "dataset.classes=null", "attack.attacks.pgd.target='+3'"]]
    configs, targets = [compose_config(job) for job in jobs], [Path("a"), Path("b")]
    assert len(plans.plan(configs, targets, jobs, brief=True).runs) == 1
    with pytest.raises(UserError, match="target"):
        plans.plan(configs, targets, jobs)


def test_side_by_side_the_time_is_shared_out(at_a_pace: list[str]) -> None:
    alone, beside = planned(*NAT, "seed=0,1,2"), planned(*NAT, "seed=0,1,2", jobs=2)
    assert beside.seconds == pytest.approx(alone.seconds / 2)
    assert planned(*NAT, "seed=0,1,2", jobs=9).seconds == pytest.approx(alone.runs[0].seconds)


def test_side_by_side_the_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    pace = Pace(1e-3, 1)
    monkeypatch.setattr("robcomp.sweeps.pace.training", lambda *_: seen.append(torch.get_num_threads()) or pace)
    monkeypatch.setattr("robcomp.sweeps.pace.evaluation", lambda *_: pace)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        planned(*NAT, jobs=2)
        assert (seen, torch.get_num_threads()) == ([2], 4)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_what_is_done_is_not_planned_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a finished run; of another run what the cache does not have; all of it with fresh=true."""
    assert main(["train", *AL0, "method.ratio=0.3"]) == 0
    assert "cost:" in capsys.readouterr().out
    done, other = planned(*AL0, "method.ratio=0.3,0.5").runs
    assert (done.finished, done.passes, done.seconds) == (True, 0, 0)
    assert [stage.cached for stage in other.stages] == [True, False]
    assert other.stages[1].seconds
    assert other.stages[1].seconds > 0
    report = json.loads(next(Path("outputs").glob("*/*/report.json")).read_text())
    share = report["accuracy"]["clean"]["value"]
    assert other.evaluation.passes == pytest.approx(20 * (1 + share * (3 + 5)))
    (fresh,) = planned(*AL0, "method.ratio=0.3", "fresh=true").runs
    assert not fresh.finished
    assert all(stage.passes and not stage.cached for stage in fresh.stages)


def test_what_a_stopped_run_has_done_is_not_planned_again(
    monkeypatch: pytest.MonkeyPatch, at_a_pace: list[str]
) -> None:
    (whole,) = planned(*NAT, "schedule.dense.epochs=4").runs

    def stop(progress: object, record: dict[str, int]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robcomp.trainers.loop.bars.TrainingProgress.epoch", stop)
        assert main(["train", *NAT, "schedule.dense.epochs=4"]) == 130
    (rest,) = planned(*NAT, "schedule.dense.epochs=4").runs
    assert rest.stages[0].done == 0.25  # the checkpoint after the first epoch
    assert rest.stages[0].passes == pytest.approx(0.75 * whole.stages[0].passes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["atmc", "dnr", "admm", "lottery", "sparse_momentum"])
def test_every_kind_of_stage_can_be_timed(method: str) -> None:
    """Steps of its last epoch, from weights that were never trained; nothing is written."""
    (run,) = planned(*typed(method)).runs
    assert all(stage.seconds > 0 for stage in run.stages if stage.passes)
    assert run.memory
    assert run.memory > 1e7
    assert not Path("outputs").exists()


def test_the_command(capsys: pytest.CaptureFixture[str], at_a_pace: list[str]) -> None:
    assert main(["plan", *NAT]) == 0
    printed = capsys.readouterr().out
    assert "dense" in printed
    assert "attacks on 20 images" in printed
    assert main(["plan", "-m", *NAT, "seed=0,1", "jobs=2", "--json"]) == 0
    out, err = capsys.readouterr()
    found = PlanResult.parse(json.loads(out), "the plan")
    assert (found.jobs, len(found.runs), found.machine.device) == (2, 2, "cpu")
    assert "2 of 2 runs left: about" in err
    assert "2 side by side" in err


def test_the_plan_of_a_table_has_its_rows(at_a_pace: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[str]]] = []
    whole = planned(*NAT)
    monkeypatch.setattr("robcomp.sweeps.sweep.planned", lambda jobs, *_: seen.append(jobs) or whole)
    assert main(["plan", "table=atmc-mnist", "scale=smoke", "seed=3"]) == 0
    assert len(seen[0]) > 5
    assert all("seed=3" in job for job in seen[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "scale=cpu"], "add table=NAME"),
        (["plan", "-m", "table=atmc-mnist"], "leave -m out"),
        (["plan", "table=atmc"], "atmc-mnist"),
        (["plan", "method.rati=0.1"], "Did you mean ratio"),
    ],
)
def test_what_cannot_be_planned(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_the_line_says_time_work_and_memory(at_a_pace: list[str]) -> None:
    found = planned(*NAT)
    run = replace(found.runs[0], memory=2_000_000_000)
    told = plans.sentence(replace(found, runs=[run], seconds=3725.0, passes=5e6, flops=3e15))
    assert told == "about 1 h 02 min, 5.0 M passes, 3.0 PFLOP, 2.0 GB of memory"
    finished = replace(run, finished=True)
    assert plans.sentence(replace(found, runs=[finished])) == "nothing is left to be computed"
    half = plans.sentence(replace(found, runs=[finished, run], seconds=None, passes=10, flops=10, jobs=2))
    assert half == "1 of 2 runs left: 10 passes, 10 FLOP, 2.0 GB of memory each, 2 side by side"
