"""`import robcomp` costs nothing and prints nothing; what it names is there."""

import subprocess
import sys
import time

import pytest

import robcomp


def test_the_import_is_quick_and_brings_no_torch() -> None:
    code = "import sys, robcomp; assert not {'torch', 'numpy', 'hydra', 'rich'} & set(sys.modules), sorted(sys.modules)"
    bare, times = [], []
    for statement, kept in (("", bare), (code, times)) * 3:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True)
        kept.append(time.monotonic() - began)
        assert (done.stdout, done.stderr) == ("", "")
    assert min(times) - min(bare) < 0.3


def test_every_name_is_there_and_listed() -> None:
    assert set(dir(robcomp)) == set(robcomp.__all__)
    for name in robcomp.__all__:
        assert getattr(robcomp, name) is not None
    with pytest.raises(AttributeError, match="'robcomp' has no attribute 'evalute'"):
        robcomp.evalute  # noqa: B018


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    from importlib.resources import files

    assert files("robcomp").joinpath("py.typed").is_file()
