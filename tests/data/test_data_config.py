"""What DatasetConfig accepts, refuses and costs to import."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from robcomp.data.config import DatasetConfig
from robcomp.data.sources import SOURCES
from robcomp.errors import UserError

GOOD = {"name": "mnist", "shape": [1, 28, 28], "classes": 10}


def test_defaults_hold_out_a_thousand_images_and_do_not_augment():
    config = DatasetConfig(**GOOD)
    assert (config.val, config.pad, config.flip, config.subset, config.test_subset) == (1000, 0, False, None, None)


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
    ],
)
def test_a_value_out_of_range_is_refused_by_name(change, given):
    with pytest.raises(UserError) as refusal:
        DatasetConfig(**{**GOOD, **change})
    assert f"dataset.{next(iter(change))}" in str(refusal.value)
    assert given in str(refusal.value)


def test_the_largest_values_allowed_are_accepted():
    DatasetConfig(**{**GOOD, "pad": 27, "subset": 1001, "val": 1000, "test_subset": 1, "classes": 2})


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
    assert {"digits", "mnist", "cifar10"} <= set(SOURCES)


def test_what_the_package_exports_is_there_and_nothing_else_is():
    import robcomp.data

    assert all(callable(getattr(robcomp.data, name)) for name in robcomp.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        robcomp.data.nonsense  # noqa: B018
