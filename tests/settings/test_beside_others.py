"""robcomp composes beside another Hydra application in one process, and leaves what that one set up as it was."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase

from robcomp.errors import UserError
from robcomp.settings.compose import compose_config

pytestmark = pytest.mark.usefixtures("sandbox")


def state() -> tuple[Any, ...]:
    """All of Hydra's that the applications of a process share."""
    store = ConfigStore.instance().repo
    groups = {name: sorted(group) if isinstance(group, dict) else group for name, group in store.items()}
    shared = GlobalHydra.instance()
    return shared, shared.hydra, VersionBase.instance().getbase(), groups, JobRuntime.instance().get("name")


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Path]:
    """Another application's configuration folder, on which Hydra is initialised."""
    folder = tmp_path / "another"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text("defaults: [model: big, _self_]\nseed: 5\n")
    (folder / "model" / "big.yaml").write_text("layers: 99\n")
    (folder / "model" / "lenet.yaml").write_text("layers: 5\n")
    base = VersionBase.instance().getbase()
    GlobalHydra.instance().clear()
    initialize_config_dir(str(folder), job_name="another", version_base="1.2")
    yield folder
    GlobalHydra.instance().clear()
    VersionBase.instance().version_base = base


@pytest.mark.parametrize("overrides", [["method=al0"], ["method=atcm"], ["method.ratio=7"], ["seed=x"], ["a=[1"]])
def test_another_application_goes_on_as_it_was(another: Path, overrides: list[str]) -> None:
    theirs, before = compose("config", overrides=["seed=6"]), state()
    try:
        assert compose_config(overrides).method.name == "al0"
    except UserError:
        assert overrides != ["method=al0"]
    after = state()
    assert after[0] is before[0]
    assert after[1] is before[1]
    assert after[2:] == before[2:]
    assert compose("config", overrides=["seed=6"]) == theirs == {"model": {"layers": 99}, "seed": 6}
    assert compose("config", overrides=["model=lenet"]).model.layers == 5


def test_a_process_without_another_application_has_none_afterwards() -> None:
    GlobalHydra.instance().clear()
    compose_config([])
    assert not GlobalHydra.instance().is_initialized()


def test_what_others_keep_in_the_store_is_neither_seen_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", dict(store.repo))
    store.store(name="robcomp", node={"seed": "theirs"})
    store.store(group="method", name="_al0", node={"ratio": "theirs"})
    store.store(group="model", name="theirs", node={"layers": 1})
    assert compose_config(["method=al0"]).method.kind == "al0"
    assert set(store.repo["method"]) == {"_al0.yaml"}
    assert set(store.repo["model"]) == {"theirs.yaml"}
    with pytest.raises(UserError, match="unknown model 'theirs'"):
        compose_config(["model=theirs"])


def test_threads_compose_side_by_side() -> None:
    with ThreadPoolExecutor(2) as pool:
        seeds = list(pool.map(lambda seed: compose_config([f"seed={seed}", "dataset=mnist"]).seed, range(4)))
    assert seeds == list(range(4))


@pytest.mark.slow
def test_inside_hydra_main(another: Path, tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "import hydra\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        f"@hydra.main(config_path={str(another)!r}, config_name='config', version_base='1.2')\n"
        "def app(config):\n"
        "    from robcomp.settings.compose import compose_config\n"
        "    before = HydraConfig.get().job.name, HydraConfig.get().runtime.output_dir\n"
        "    ours = compose_config(['method=al0', 'seed=3'])\n"
        "    again = hydra.compose('config', overrides=['seed=8'])\n"
        "    assert (HydraConfig.get().job.name, HydraConfig.get().runtime.output_dir) == before\n"
        "    print(config.model.layers, again.seed, ours.method.name, ours.seed, HydraConfig.get().job.name)\n"
        "app()\n"
    )
    said = subprocess.check_output([sys.executable, program, "seed=7"], cwd=tmp_path, text=True)
    assert said.split() == ["99", "8", "al0", "3", "app"]
