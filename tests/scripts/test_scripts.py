"""Every script under scripts/ runs, at a scale of seconds, and prints what it promises."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny import CPU, run, typed

from robcomp.cli.parser import main
from robcomp.report import records, results
from robcomp.settings.compose import compose_config

SCRIPTS = Path(__file__).parents[2] / "scripts"
TESTED = {
    *("bench_projections", "bench_training", "compare_attacks", "judge_claims", "render_docs", "render_results"),
    *("bench_runs", "trial_quick", "trial_verdict"),
}
IMPORTED = {"defences"}

pytestmark = pytest.mark.usefixtures("sandbox", "no_curves")


@pytest.fixture
def finished() -> Path:
    """A run directory in the sandbox."""
    return run(["method=al0", "method.ratio=0.3"])


def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: object) -> str:
    """The output of `python scripts/NAME.py ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capsys.readouterr()
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_script_is_here() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == TESTED | IMPORTED


def test_bench_projections(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = start(monkeypatch, capsys, "bench_projections", "--device", "cpu", "--repeats", 1, "--points", 500)
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["l0", "l0", "codebook", "codebook"]


@pytest.mark.parametrize("method", ["atmc", "dnr"])
def test_bench_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str) -> None:
    """The last stage of the method beside a textbook loop."""
    small = ["model.width=0.1", "training.batch_size=8", "training.attack.steps=1", "training.precision=float32"]
    counts = ["--steps", 1, "--rounds", 1, "--matrix", 64]
    out = start(monkeypatch, capsys, "bench_training", f"method={method}", "device=cpu", *small, *counts)
    rows = [line for line in out.splitlines() if line.startswith(("textbook", "robcomp"))]
    assert [row.split("  ")[0] for row in rows] == ["textbook float32", "textbook bf16 autocast", "robcomp float32"]
    assert all(float(row.split()[-1]) > 0 for row in rows)


@pytest.mark.parametrize(("method", "steps"), [("dnr", 2), ("admm_oneshot", 3)])
def test_bench_training_times_the_attack_at_its_full_strength(method: str, steps: int) -> None:
    """No warm-up on clean images, no first part of an attack curriculum."""
    script = runpy.run_path(str(SCRIPTS / "bench_training.py"))
    small = ["model.width=0.1", "training.batch_size=8", f"training.attack.steps={steps}", "dataset.val=0"]
    config = compose_config([f"method={method}", *small])
    data = script["random_data"](config, 40, torch.device("cpu"))
    ours = script["Ours"](config, data, CPU)
    ours.steps(1)
    assert ours.loop.gradients.now.attack.steps == steps


def test_bench_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All its parts; here a command is called instead of started, and so is what would be killed."""

    def command(*words: str, threads: int | None = None) -> tuple[float, str]:
        capsys.readouterr()
        assert main([word for word in words if not word.startswith("jobs=")]) == 0
        return 2.0, capsys.readouterr().out

    script = runpy.run_path(str(SCRIPTS / "bench_runs.py"))
    own = script["main"].__globals__
    own["command"] = command
    own["stopped"] = lambda words, *_: {"seconds_after": command("train", "-m", *words)[0]}
    tiny, sweep = shlex.join(typed("nat")), shlex.join([*typed("nat"), "seed=0,1"])
    given = ["--sweep", sweep, "--runs", tiny, "--table", "", "--busy", tiny, "--wait", "0", "--json", "runs.json"]
    monkeypatch.setattr(sys, "argv", ["bench_runs", *given])
    script["main"]()
    figures = json.loads(Path("runs.json").read_text())
    beside = figures["side_by_side"]
    assert (beside["runs"], beside["networks_that_differ"], beside["stages_trained_twice"]) == (2, 0, 0)
    assert beside["killed_half_way"]["networks_that_differ"] == 0
    (row,) = figures["plan"]
    assert row["seconds"] == 2.0
    assert row["foretold_by_measured"] == pytest.approx(row["seconds_foretold"] / 2)
    assert figures["busy"]["images_per_second_alone"] > 0


def test_bench_runs_kills_a_sweep_and_starts_it_again() -> None:
    script = runpy.run_path(str(SCRIPTS / "bench_runs.py"))
    words = [*typed("nat"), "schedule.dense.epochs=3,4", "out=killed"]
    found = script["stopped"](words, 1, Path("killed"), 6.0)
    assert found["done_again"] == 0
    assert len(list(Path("killed").glob("*/*/report.json"))) == 2


def test_compare_attacks(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """robcomp alone: the other libraries are for `make test-oracle`."""
    written = Path("attacks.json")
    wanted = ["--images", 6, "--libraries", "robcomp", "--attacks", "apgd_ce,apgd_t", "--json", written]
    out = start(monkeypatch, capsys, "compare_attacks", finished, *wanted)
    rows = json.loads(written.read_text())["rows"]
    assert [row["attack"] for row in rows] == ["apgd_ce", "apgd_t"]
    assert all(0 <= row["robcomp"]["robust"] <= 1 for row in rows)
    assert all(row["attack"] in out for row in rows)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc (Linux)")
def test_compare_attacks_memory(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = start(monkeypatch, capsys, "compare_attacks", finished, "--images", 6, "--memory")
    assert "one training step on 6 images" in out
    assert "square" in out


def test_trial_verdict(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The run as it is, a defence around it and one that is trained; what was trained is read from the cache."""
    monkeypatch.syspath_prepend(SCRIPTS)
    wanted = ["--images", 20, "--steps", 2, "--queries", 10, "--defences", "rounded input,winners take all"]
    kept = ["--cache", "cache", "--json", "lines.json"]
    for _ in range(2):
        with pytest.raises(SystemExit):
            start(monkeypatch, capsys, "trial_verdict", finished, *wanted, *kept)
    rows = json.loads(Path("lines.json").read_text())
    assert [row["defence"] for row in rows] == ["as it is", "rounded input", "winners take all"]
    assert all(row["network"] == "tiny lenet al0 seed 0" and 0 <= row["strongest"] <= 1 for row in rows)
    assert [path.name for path in Path("cache").rglob("*.pt")] == ["winners.pt"]
    assert "Honest networks: " in capsys.readouterr().out


def test_trial_quick(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each run of the list, beside AutoAttack where the run was attacked by it."""
    short = [f"attack.attacks.{name}" for name in ("apgd_ce.steps", "apgd_t.steps", "fab_t.steps")]
    standard = ["evaluate", f"run={finished}", "attack=autoattack", "dataset.test_subset=10"]
    assert main([*standard, "attack.verdict=0"]) == 0
    assert main([*standard, *(f"{key}=1" for key in short)]) == 0
    Path("list.txt").write_text(f"{finished}\n")
    lines = start(monkeypatch, capsys, "trial_quick", "list.txt", "--images", 10).splitlines()
    clean, pgd, quick, strongest = map(int, lines[1].split("seed 0")[1].split()[:4])
    assert 10 >= clean >= pgd >= quick >= strongest - 1
    assert lines[2] == f"tiny, 1 networks: pgd above AutoAttack by {pgd - strongest:.1f}, at most {pgd - strongest}"


def test_judge_claims(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On the committed table and its runs: a line under PGD and one under AutoAttack for each claim on PGD."""
    results = Path(__file__).parents[2] / "results"
    table = results / "rivals-mnist-cpu.json"
    out = start(monkeypatch, capsys, "judge_claims", table, results / "rivals-mnist-cpu")
    lines = out.splitlines()
    assert len(lines) == 2 * 21
    assert all("holds" in line or "not" in line for line in lines)
    assert lines[1].split("AutoAttack")[1].split()[-1] == "holds"  # ADMM irregular above filter


def test_render_results(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A page for the study: its note, the run, its command as a shell takes it, and its curves if asked for."""
    place = Path("results") / "a-study" / finished.name
    shutil.copytree(finished, place)
    report = json.loads((place / "report.json").read_text())
    report["run"]["overrides"] = ["method=admm", "+method.ratios={conv1: 0.5, fc1: 0.1}", "dataset.name=" + 90 * "x"]
    (place / "report.json").write_text(json.dumps(report))
    (place.parent / "note.md").write_text("# A study\n\nWhat was found.\n")
    (place.parent / "log.txt").write_text("word " * 40)
    (place / "report.md").write_text("As an earlier robcomp rendered it.")
    nothing = {name: [] for name in ("extra", "grid", "accuracy", "size", "records", "published", "comparisons")}
    texts = {name: name for name in ("name", "scale", "title", "source", "note", "x")}
    results.TableResult.make(**texts, **nothing, definitions={}).write(Path("results") / "table-smoke.json")
    start(monkeypatch, capsys, "render_results", "results", "--curves")
    page = Path("results/a-study/README.md").read_text()
    assert page.startswith("# A study\n\nWhat was found.\n")
    assert "| file |" in (place / "report.md").read_text()
    assert "(table-smoke.png)" in Path("results/table-smoke.md").read_text()
    assert f"({finished.name}/report.md)" in page
    (command,) = re.findall(r"```sh\n(robcomp train .*?)\n```", page, re.S)
    assert shlex.split(command.replace("\\\n", " "))[2:] == report["run"]["overrides"]
    assert page.count("word") == 40
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
    assert (place / "curves.png").stat().st_size > 1000


def test_every_inferred_setting_is_listed_and_stands_where_it_is_marked() -> None:
    """docs/published-settings.md is made of the marks; each names settings of its file."""
    script = runpy.run_path(str(SCRIPTS / "render_docs.py"))
    page = script["SETTINGS"].read_text(encoding="utf-8")
    assert script["listed"](page) == page
    marks = list(script["inferred"]())
    assert ("conf/dataset/mnist.yaml", ["threat.eps"]) in [(path, keys) for path, keys, _ in marks]
    files = {path: (script["TOP"] / path).read_text(encoding="utf-8") for path, _, _ in marks}
    assert sum(text.count("# inferred:") for text in files.values()) == len(marks)
    for path, keys, _ in marks:
        bare = script["INFERRED"].sub("", files[path])
        missing = [key for key in keys if not re.search(rf"\b{re.escape(key.split('.')[-1])}\b", bare)]
        assert missing == [], path


def test_the_keys_of_every_file_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/report.md is what scripts/render_docs.py makes of it, and has a table for every kind of file."""
    script = runpy.run_path(str(SCRIPTS / "render_docs.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert script["rendered"](text) == text
    changed = text.replace("digest of the stored data", "something else", 1)
    assert script["rendered"](changed) == text
    documented = {found[3] for found in script["TABLE"].finditer(text)}
    kinds = {kind for kind in vars(results).values() if isinstance(kind, type) and issubclass(kind, records.Document)}
    assert {kind.__name__ for kind in kinds} - {"Document"} <= documented
    monkeypatch.setattr(sys, "argv", ["render_docs", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / "render_docs.py"), run_name="__main__")
    assert ended.value.code == 0
