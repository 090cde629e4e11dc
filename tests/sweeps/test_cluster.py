"""Runs as jobs of a cluster, on submitit's executor for this machine; what it is told for Slurm."""

import json
import sys
from pathlib import Path

import pytest
from tiny import typed

from robcomp.cli.parser import main
from robcomp.sweeps.cluster import Cluster, RunJob
from robcomp.sweeps.events import Ended, Said

pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.mark.slow
def test_a_sweep_as_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """The second run waits for the dense stage of the first, and is another job."""
    words = [*typed("al0"), "method.ratio=0.3,0.5", "launcher=local", "launcher.timeout_min=10"]
    assert main(["train", "-m", *words, "jobs=2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    reports = [json.loads(page.read_text()) for page in Path("outputs").glob("*/*/report.json")]
    keys = [stage["key"] for report in reports for stage in report["stages"] if not stage["cached"]]
    assert len(reports) == 2
    assert len(keys) == len(set(keys)) == 3
    assert printed[-1] == "2 of 2 runs finished"
    assert any(line.startswith("[2] job ") and "prints to" in line for line in printed)
    logs = [log.read_text() for log in Path("outputs/jobs").glob("*/*_log.out")]
    assert len(logs) == 2
    assert all("run directory: " in log for log in logs)


@pytest.mark.slow
def test_a_job_whose_run_fails_says_why() -> None:
    ended = RunJob()(4, [*typed("nat"), "schedule.dense.lr=1e30"], set())
    assert ended.place == 4
    assert "training diverged" in ended.failure
    assert "Traceback" in ended.trace


class Job:
    """What submitit returns of a job, at each look one state further."""

    def __init__(self, *states: str, result: object = None) -> None:
        self.job_id, self._states, self._result = "7", [*states], result
        self.paths = type("Paths", (), {"stdout": "7_log.out", "stderr": "7_log.err"})

    def done(self) -> bool:
        return not self._states

    @property
    def state(self) -> str:
        return self._states.pop(0) if self._states else "TIMEOUT"

    def result(self) -> object:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def cancel(self) -> None:
        raise AssertionError("jobs in a queue are left there")


def cluster(monkeypatch: pytest.MonkeyPatch, **jobs: Job) -> Cluster:
    monkeypatch.setattr("robcomp.sweeps.cluster.LOOK", {"local": 0.0})
    made = Cluster("local", {}, Path("jobs"), 2)
    made._jobs.update(enumerate(jobs.values()))
    return made


def test_what_becomes_of_jobs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Job(result=RuntimeError("no output"))
    made = cluster(monkeypatch, one=Job("PENDING", "PENDING", "RUNNING", result=Ended(0)), two=lost)
    assert not made.free
    first = list(made.events())
    assert first[0] == Said(0, "job 7: pending, prints to 7_log.out")
    assert first[1] == Ended(1, "job 7 ended without a result (timeout), see 7_log.err", "no output")
    assert made.free
    assert list(made.events()) == []
    assert [event.text for event in made.events()] == ["job 7: running, prints to 7_log.out"]
    assert list(made.events()) == [Ended(0)]


def test_a_job_that_the_queue_stops_is_put_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, and does not start over once more."""
    submission = RunJob().checkpoint(3, ["seed=1", "fresh=true"], {Path("a")})
    assert (type(submission.function), submission.args) == (RunJob, (3, ["seed=1"], {Path("a")}))


def test_what_stays_in_the_queue_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cluster(monkeypatch, one=Job("RUNNING"))
    assert made.farewell == ""  # of this machine: they end with the command
    made.launcher = "slurm"
    with made:
        pass
    assert made.farewell == "1 jobs stay in the queue, where they go on; to stop them: scancel 7"


class Refusing:
    def submit(self, *_: object) -> Job:
        raise RuntimeError("invalid partition")


def test_a_job_that_the_queue_does_not_take_is_a_run_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cluster(monkeypatch)
    made._executor = Refusing()
    made.start(3, ["seed=1"], set())
    (ended,) = made.events()
    assert (ended.place, ended.failure) == (3, "invalid partition")
    assert "Traceback" in ended.trace


def test_the_executor_is_told_the_settings() -> None:
    made = Cluster("local", {"timeout_min": "10", "gpus_per_node": "2", "slurm_partition": "gpu"}, Path("jobs"))
    assert made._executor._executor.parameters["timeout_min"] == 10
    assert made._executor._executor.parameters["gpus_per_node"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launcher=slum"], "slurm"),
        (["launcher="], "give slurm or local"),
        (["launcher.partition=gpu"], "add launcher=slurm"),
        (["launcher=local", "launcher.gpus=2"], "gpus_per_node"),
        (["launcher=local", "launcher.timeout_min=long"], "timeout_min"),
        (["launcher=slurm"], "srun"),  # there is no Slurm on this machine
        (["launcher=local", "training.precision=auto"], "add training.precision=bf16"),
    ],
)
def test_a_launcher_that_cannot_be_used(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *typed("nat"), "seed=0,1", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_table_takes_a_launcher_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "atmc-mnist", "training.precision=float32", "launcher=slum"]) == 2
    assert "slurm" in capsys.readouterr().err


def test_without_submitit_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["train", *typed("nat"), "launcher=slurm"]) == 2
    assert "pip install 'robcomp[cluster]'" in capsys.readouterr().err
