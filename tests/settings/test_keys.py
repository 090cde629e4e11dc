"""Keys and registered names as they are read from the sources, beside what Python and Hydra make of them."""

from dataclasses import fields
from inspect import cleandoc
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from robcomp.attacks import ATTACKS
from robcomp.models import MODELS
from robcomp.registry import Registry
from robcomp.settings import keys, registered
from robcomp.settings.choices import choices
from robcomp.settings.compose import compose_node
from robcomp.trainers.methods import METHODS

pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.mark.parametrize(("room", "registry"), [("attack", ATTACKS), ("model", MODELS), ("method", METHODS)])
def test_what_registers_is_found_with_its_fields(room: str, registry: Registry[Any]) -> None:
    found = registered.registered(room)
    assert sorted(found) == sorted(registry)
    for name, cls in registry.items():
        assert list(registered.fields(room, found[name])) == [field.name for field in fields(cls)], name
        assert found[name].doc == cleandoc(vars(cls)["__doc__"]), name


def paths(node: DictConfig | keys.Tree, above: str = "") -> set[str]:
    """Every key under a node; of the attacks of a suite their names alone, which is what YAML says of them."""
    found = set()
    for key, below in node.items():
        path = f"{above}{key}"
        found.add(path)
        if isinstance(below, dict | DictConfig) and not path.startswith("attack.attacks."):
            found |= paths(below, f"{path}.")
    return found


CHOSEN = [{}, *({"method": name} for name in choices("method")), *({"model": name} for name in choices("model"))]
CHOSEN += [{"dataset": "cifar10"}, {"attack": "full"}, {"dataset": "mnist", "recipe": "dnr-cifar10"}]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_the_keys_are_those_that_hydra_composes(chosen: dict[str, str]) -> None:
    composed = paths(compose_node([f"{group}={name}" for group, name in chosen.items()]))
    assert paths(keys.tree(chosen)) == composed


def test_an_attack_of_a_suite_has_all_settings_of_its_class() -> None:
    margin = keys.tree({"attack": "quick"})["attack"]["attacks"]["margin"]
    own = registered.fields("attack", registered.registered("attack")["pgd"])
    assert set(margin) == {*own, "attack", "excluded", "survivors"}


def test_ones_own_files_build_on_others(tmp_path: Path) -> None:
    for name, text in {
        "method/mine.yaml": "defaults: [al0, _self_]\nname: mine\n",
        "attack/mine.yaml": "defaults: [quick, _self_]\nattacks: {x: {attack: fgsm, eps: 0.1}}\n",
        "experiment/e.yaml": "# @package _global_\ndefaults:\n  - override /method: mine\n  - override /attack: mine\n",
        "method/broken.yaml": "a: [1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = keys.tree({"experiment": "e"}, [tmp_path])
    assert set(found["method"]) == set(keys.tree({"method": "al0"})["method"])
    assert "x" in found["attack"]["attacks"]
    assert keys.tree({"method": "broken"}, [tmp_path])["method"] == {}
    assert keys.tree({"method": "none"})["method"] == {}
