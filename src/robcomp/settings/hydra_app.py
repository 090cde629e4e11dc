"""Hydra, for this application alone: what another one in the same process has set up stays as it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import DictConfig

from robcomp.settings.choices import conf_dir

VERSION_BASE = "1.3"
_lock = RLock()  # Hydra's state is one for the whole process


def stored(enter: Callable[[ConfigStore], None]) -> dict[str, Any]:
    """The structured configurations that `enter` stores, which then do not stay where all applications look."""
    with _lock:
        store = ConfigStore.instance()
        others, store.repo = store.repo, {}
        try:
            enter(store)
            return store.repo
        finally:
            store.repo = others


def composed(name: str, overrides: Sequence[str], ours: Mapping[str, Any]) -> DictConfig:
    """conf/NAME.yaml under `overrides`, Hydra's own node included; `ours`: our structured configurations."""
    with _initialised(ours):
        return compose(name, overrides=list(overrides), return_hydra_config=True)


@contextmanager
def _initialised(ours: Mapping[str, Any]) -> Iterator[None]:
    """Inside, Hydra is initialised on conf/; after it, all that another application set up is in place again."""
    with _lock:
        Plugins.instance()  # which store what they bring where all applications look for it
        hydra, version, store, job = (
            GlobalHydra.instance(),
            VersionBase.instance(),
            ConfigStore.instance(),
            JobRuntime.instance(),
        )
        before = hydra.hydra, version.version_base, store.repo, job.get("name")
        try:
            hydra.clear()
            store.repo = {**store.repo, **ours}
            initialize_config_dir(str(conf_dir()), job_name="robcomp", version_base=VERSION_BASE)
            yield
        finally:
            hydra.hydra, version.version_base, store.repo = before[:3]
            job.set("name", before[3])
