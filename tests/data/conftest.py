"""Tiny data sets: in memory, and as the archives they are published in."""

import urllib.request
from collections.abc import Callable
from urllib.error import URLError

import pytest
from data_archives import Archives, make_raw

from robcomp.data import DatasetConfig
from robcomp.data.sources import Raw


@pytest.fixture
def raw() -> Raw:
    return make_raw()


@pytest.fixture
def tiny() -> Callable[..., DatasetConfig]:
    """The configuration that fits `raw`, with changes."""

    def build(**changes: object) -> DatasetConfig:
        return DatasetConfig(**{"name": "tiny", "shape": [3, 6, 5], "classes": 4, "val": 0, **changes})

    return build


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every download fails as on a machine without a network; the list fills with the addresses that were asked for."""
    asked: list[str] = []

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> None:
        asked.append(request.full_url)
        raise URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch, no_network: list[str]) -> Archives:
    return Archives(monkeypatch)


@pytest.fixture
def mnist_raw() -> Raw:
    return make_raw(train=30, test=20, classes=10, shape=(1, 28, 28))


@pytest.fixture
def cifar10_raw() -> Raw:
    return make_raw(train=55, test=20, classes=10, shape=(3, 32, 32))


@pytest.fixture
def cifar100_raw() -> Raw:
    return make_raw(train=130, test=110, classes=100, shape=(3, 32, 32))
