#!/usr/bin/env python3
"""Time whole commands: a sweep side by side against one after another, `robcomp plan` against what it foretold, and a
run beside a busy process. Writes one JSON file.

- side_by_side: the same sweep by one process on one thread, by one process on --jobs threads, and by --jobs processes
  on one thread each. It counts the stages that were trained more than once, and the model.rcz files that differ between
  the first and the last. Then it is started once more, killed half-way, and started again; every stage and run that was
  finished at the kill must be as it was.
- plan: `robcomp plan`, and then the run itself, for each of --runs in order, and for --table. The first run on a data
  set has a guess for the share of images that withstand the first attacks, later ones have what was found.
- busy: images trained per second by two threads alone, beside a process that keeps one core busy, and there on the
  number of threads that robcomp takes by itself. For a machine of two cores.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robcomp import storage
from robcomp.evaluation.machine import machine
from robcomp.hardware import choose_device, choose_precision, leave_busy_cores
from robcomp.report.records import to_json
from robcomp.settings.compose import compose_config
from robcomp.sweeps import sweep

SWEEP = (
    "dataset=digits method=al0 method.epochs_scale=0.4 dataset.test_subset=60 attack.verdict=25 "
    "method.ratio=0.02,0.05 seed=0,1,2,3"
)
RUNS = (
    "",
    "dataset=mnist method=dnr dataset.subset=6000 method.epochs_scale=0.1 dataset.test_subset=500",
    "dataset=cifar10 model=resnet18 model.width=0.25 dataset.subset=2000 method.epochs_scale=0.02 "
    "dataset.test_subset=200 method=al0",
)
PARTS = ("side_by_side", "plan", "busy")
SPIN = "while True: pass"


def command(*words: str, threads: int | None = None) -> tuple[float, str]:
    """Seconds that `robcomp WORDS` takes, and what it prints; its failure is that of this script."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "robcomp", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.monotonic() - began, done.stdout


def side_by_side(words: Sequence[str], jobs: int, folder: Path) -> dict[str, Any]:
    one, two, many, killed = (str(folder / name) for name in ("one", "two", "many", "killed"))
    alone, _ = command("train", "-m", *words, f"out={one}", threads=1)
    whole, _ = command("train", "-m", *words, f"out={two}", threads=jobs)
    beside, _ = command("train", "-m", *words, f"out={many}", f"jobs={jobs}", threads=jobs)
    again = stopped([*words, f"out={killed}", f"jobs={jobs}"], jobs, Path(killed), alone / jobs / 2)
    files = sorted(path.relative_to(one) for path in Path(one).glob("*/*/model.rcz"))
    return {
        "jobs": jobs,
        "runs": len(files),
        "seconds_one_after_another_on_one_thread": alone,
        "seconds_one_after_another_on_all_threads": whole,
        "seconds_side_by_side": beside,
        "times_as_fast_as_on_one_thread": alone / beside,
        "times_as_fast_as_on_all_threads": whole / beside,
        "networks_that_differ": different(files, one, many),
        "stages_trained_twice": twice(Path(many)),
        "killed_half_way": again | {"networks_that_differ": different(files, one, killed)},
    }


def different(files: Sequence[Path], one: str, other: str) -> int:
    """How many of the networks are not the same, byte for byte."""
    return sum(Path(one, file).read_bytes() != Path(other, file).read_bytes() for file in files)


def twice(folder: Path) -> int:
    """How many stages more than one run trained."""
    reports = [json.loads(page.read_text()) for page in folder.glob("*/*/report.json")]
    keys = [stage["key"] for report in reports for stage in report["stages"] if not stage["cached"]]
    return len(keys) - len(set(keys))


def stopped(words: Sequence[str], threads: int, folder: Path, seconds: float) -> dict[str, Any]:
    """A sweep killed after so many seconds, with its processes, and started again."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "robcomp", "train", "-m", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/result.safetensors")}
    reports = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/report.json")}
    took, printed = command("train", "-m", *words, threads=threads)
    touched = sum(path.stat().st_mtime_ns != when for path, when in {**finished, **reports}.items())
    return {
        "seconds_before": seconds,
        "seconds_after": took,
        "stages_finished_before": len(finished),
        "runs_finished_before": len(reports),
        "resumed": printed.count("resumed"),
        "done_again": touched,
    }


def plan(runs: Sequence[str], table: str, scale: str, extra: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """What was foretold of each command, and what it took."""
    rows = []
    out = [f"out={folder / 'planned'}", *extra]
    for run in runs:
        words = [*shlex.split(run), *out]
        _, text = command("plan", *words, "--json")
        took, _ = command("train", *words)
        rows.append(compared(run or "(the defaults)", json.loads(text), took))
    if table:
        _, text = command("plan", f"table={table}", f"scale={scale}", *out, "--json")
        where = [f"runs={folder / 'planned'}", f"out={folder / 'table'}"]
        took, _ = command("table", table, "--scale", scale, *extra, *where)
        rows.append(compared(f"table {table}, scale {scale}", json.loads(text), took))
    return rows


def compared(what: str, told: dict[str, Any], took: float) -> dict[str, Any]:
    guesses = [run["evaluation"] for run in told["runs"]]
    return {
        "what": what,
        "seconds_foretold": told["seconds"],
        "seconds": took,
        "foretold_by_measured": told["seconds"] / took,
        "withstanding": guesses[0]["withstanding"],
        "known_from_finished_runs": all(guess["known"] for guess in guesses),
    }


def speed(overrides: Sequence[str]) -> float:
    """Images a second of the first stage of a configuration."""
    config = compose_config(overrides)
    found = sweep.planned([list(overrides)], Console(quiet=True))
    stage = found.runs[0].stages[0]
    assert stage.seconds
    batch = config.training.batch_size
    passes = config.stages()[0].objective.passes(0, config.stages()[0].schedule.epochs)
    return batch / (stage.seconds / stage.passes * passes * batch)


def busy(overrides: Sequence[str], wait: float) -> dict[str, Any]:
    """Speeds alone, beside a busy process, and there with the threads that robcomp takes; `wait`: seconds before."""
    os.environ.pop("OMP_NUM_THREADS", None)
    torch.set_num_threads(2)
    alone = speed(overrides)
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        time.sleep(wait)  # until the machine's load says so
        beside = speed(overrides)
        told = leave_busy_cores()
        threads = torch.get_num_threads()
        fewer = speed(overrides)
    finally:
        process.kill()
    return {
        "threads": 2,
        "images_per_second_alone": alone,
        "images_per_second_beside_a_busy_process": beside,
        "images_per_second_on_the_threads_taken": fewer,
        "threads_taken": threads,
        "said": told,
        "times_slower": alone / fewer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--sweep", default=SWEEP, help="overrides of the sweep")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--runs", nargs="*", default=RUNS, help="overrides of each run to be planned")
    parser.add_argument("--table", default="atmc-mnist", help="a table to be planned; empty for none")
    parser.add_argument("--scale", default="smoke", help="its scale (default: smoke)")
    parser.add_argument("--extra", nargs="*", default=[], help="overrides of all commands, as data_dir=DIR")
    parser.add_argument("--busy", default="dataset=mnist method=nap", help="overrides of the run beside a busy process")
    parser.add_argument("--wait", type=float, default=60, help="seconds that the busy process has been there")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    args = parser.parse_args()
    device = choose_device("auto")
    figures: dict[str, Any] = {"machine": to_json(machine(device, choose_precision("auto", device)))}
    parts = args.parts.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "side_by_side" in parts:
            found = side_by_side([*shlex.split(args.sweep), *args.extra], args.jobs, folder)
            figures["side_by_side"] = {"sweep": args.sweep, **found}
        if "plan" in parts:
            figures["plan"] = plan(args.runs, args.table, args.scale, args.extra, folder)
        if "busy" in parts:
            found = busy([*shlex.split(args.busy), *args.extra, f"out={folder / 'busy'}"], args.wait)
            figures["busy"] = {"run": args.busy, **found}
    storage.write_json(args.json, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
