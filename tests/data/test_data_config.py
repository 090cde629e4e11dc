"""What DatasetConfig accepts, refuses and costs to import."""

import subprocess
import sys
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from robcomp.data.config import DatasetConfig
from robcomp.data.sources import SOURCES
from robcomp.errors import UserError

GOOD = {"name": "mnist", "shape": [1, 28, 28], "classes": 10}


def test_defaults_hold_out_a_thousand_images_and_do_not_augment():
    config = DatasetConfig(**GOOD)
    assert (config.val, config.pad, config.flip, config.subset, config.test_subset) == (1000, 0, False, None, None)
    assert (config.pad_mode, config.rotate, config.path, config.test_fraction) == ("zero", 0.0, None, 0.2)
    assert DatasetConfig("mnist", [1, 28, 28]).classes is None


@pytest.mark.parametrize(
    ("change", "given"),
    [
        ({"shape": [28, 28]}, "[28, 28]"),
        ({"shape": [1, 0, 28]}, "[1, 0, 28]"),
        ({"classes": 1}, "classes=1"),
        ({"subset": 0}, "subset=0"),
        ({"test_subset": -3}, "test_subset=-3"),
        ({"val": -1}, "val=-1"),
        ({"pad": -1}, "pad=-1"),
        ({"pad": 28}, "at most 27"),
        ({"subset": 1000}, "choose dataset.val below 1000"),
        ({"name": "../mnist"}, "../mnist"),
        ({"name": ""}, "''"),
        ({"rotate": -1.0}, "rotate=-1"),
        ({"rotate": 180.5}, "[0, 180]"),
        ({"test_fraction": 0.0}, "test_fraction=0"),
        ({"test_fraction": 1.0}, "(0, 1)"),
        ({"shape": [4, 28, 28], "path": "trees"}, "choose 1 or 3"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(change, given):
    with pytest.raises(UserError) as refusal:
        DatasetConfig(**{**GOOD, **change})
    assert f"dataset.{next(iter(change))}" in str(refusal.value)
    assert given in str(refusal.value)


def test_the_largest_values_allowed_are_accepted():
    DatasetConfig(**{**GOOD, "pad": 27, "subset": 1001, "val": 1000, "test_subset": 1, "classes": 2, "rotate": 180.0})
    DatasetConfig(**{**GOOD, "subset": 1, "val": None, "shape": [4, 28, 28], "pad_mode": "reflect"})


def test_an_unknown_pad_mode_is_refused_with_the_allowed_ones():
    with pytest.raises(UserError, match=r"unknown dataset\.pad_mode 'reflekt'; choose from reflect, zero"):
        DatasetConfig(**GOOD, pad_mode="reflekt")


def test_a_folder_without_a_path_is_refused_with_what_to_add():
    for path in (None, ""):
        with pytest.raises(UserError, match=r"add dataset\.path=DIR"):
            DatasetConfig(name="folder", shape=[3, 64, 64], path=path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("some/flowers", "flowers"),
        ("My Flowers (2)!", "My-Flowers-2"),
        (".hidden", "hidden"),
        ("/", "folder"),
        ("a/../b/.", "b"),
        ("Blüten", "Bl-ten"),
        ("...x/---", "folder"),
        ("v1.2_x", "v1.2_x"),
    ],
)
def test_a_run_is_named_after_the_folder(path, name):
    assert DatasetConfig(name="folder", shape=[3, 64, 64], path=path).name == name
    assert DatasetConfig(name="mine", shape=[3, 64, 64], path=path).name == "mine"


def test_a_path_is_made_absolute_so_that_two_spellings_are_one(tmp_path, monkeypatch):
    (tmp_path / "trees").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    configs = [DatasetConfig("folder", [3, 8, 8], path=path) for path in ("trees", "./x/../trees/", "~/trees")]
    assert configs[0] == configs[1] == configs[2] == DatasetConfig(**asdict(configs[0]))
    assert configs[0].path == str(tmp_path / "trees")


def test_it_is_a_structured_config_that_overrides_can_change():
    node = OmegaConf.merge(OmegaConf.structured(DatasetConfig), {**GOOD, "subset": 5000, "pad": 4})
    config = OmegaConf.to_object(node)
    assert config == DatasetConfig(**GOOD, subset=5000, pad=4)
    assert type(config.shape) is list


def test_configuration_and_the_list_of_sources_do_not_import_torch():
    program = (
        "import sys, robcomp.data, robcomp.data.config, robcomp.data.sources\n"
        "assert 'cifar10' in list(robcomp.data.sources.SOURCES)\n"
        "assert not {'torch', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_sources_of_this_version_are_registered():
    assert {"digits", "mnist", "cifar10", "cifar100", "svhn", "tiny_imagenet"} == set(SOURCES)


def test_what_the_package_exports_is_there_and_nothing_else_is():
    import robcomp.data

    assert all(callable(getattr(robcomp.data, name)) for name in robcomp.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        robcomp.data.nonsense  # noqa: B018
