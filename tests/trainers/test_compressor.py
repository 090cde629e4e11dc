"""What every compressor is: settings that never change, and a run state that a checkpoint brings back."""

import importlib
import pkgutil
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import convolutional, train_stage, train_state
from torch import Tensor

from robcomp.trainers import compressors, methods
from robcomp.trainers.compressor import TRANSIENT, Compressor, capture, restore
from robcomp.trainers.compressors.admm import ADMMCompressor
from robcomp.trainers.compressors.admm_oneshot import ADMMOneShotCompressor
from robcomp.trainers.compressors.codebook import PostTraining, QuantisedL0
from robcomp.trainers.compressors.fixed_support import FixedSupport
from robcomp.trainers.compressors.lasso import Lasso
from robcomp.trainers.compressors.layer_budgets import LayerBudgets
from robcomp.trainers.compressors.rewiring import Rewiring
from robcomp.trainers.compressors.snip import Snip
from robcomp.trainers.compressors.sparsity import GlobalL0, MagnitudeMask, MaskCompressor
from robcomp.trainers.objectives import Natural
from robcomp.trainers.stage import Schedule, Stage

WITHOUT_STATE = [Compressor(), Lasso(0.01), PostTraining(3)]
WITH_STATE = [
    ADMMCompressor(LayerBudgets(0.6, ratios={"0": 0.5, "6": 0.2}), progressive=True),
    ADMMOneShotCompressor(0.3, k_levels=[0.5, 0.3]),
    FixedSupport(),
    GlobalL0(0.3),
    MagnitudeMask(0.3),
    QuantisedL0(0.3, 2),
    Rewiring(0.3),
    Snip(0.3, images=16),
]


def class_name(compressor: Compressor) -> str:
    return type(compressor).__name__


def compressor_classes() -> set[type[Compressor]]:
    """Those of robcomp, with the one that has no constraint and those that only others are made of."""
    for package in (compressors, methods):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, left = set(), [Compressor]
    while left:
        found.add(cls := left.pop())
        left += cls.__subclasses__()
    return {cls for cls in found if cls.__module__.partition(".")[0] == "robcomp"}


def another(value: Any) -> Any:
    """A value of the same kind that is not equal to `value`."""
    if isinstance(value, Tensor):
        return ~value if value.dtype == torch.bool else value.detach() + 1
    if isinstance(value, list):
        return [*map(another, value), 1]
    if isinstance(value, dict):
        return {name: another(item) for name, item in value.items()} | {"more": 1}
    return value + ("more" if isinstance(value, str) else 1)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(item, b[name]) for name, item in a.items())
    return a == b


def test_every_compressor_is_a_frozen_dataclass_and_has_its_case_here() -> None:
    classes = compressor_classes()
    assert classes == {type(compressor) for compressor in (*WITHOUT_STATE, *WITH_STATE)} | {MaskCompressor}
    for cls in classes:
        assert "__dataclass_params__" in vars(cls), f"{cls.__name__} is no dataclass itself"
        assert cls.__dataclass_params__.frozen, cls.__name__


@pytest.mark.parametrize("compressor", [*WITHOUT_STATE, *WITH_STATE], ids=class_name)
def test_a_compressor_is_never_changed(tmp_path: Path, compressor: Compressor) -> None:
    """Neither from outside nor by the stage that it constrains; nothing is added to it either."""
    settings, attributes = asdict(compressor), list(vars(compressor))
    for name in (*settings, "something_new"):
        with pytest.raises(FrozenInstanceError):
            setattr(compressor, name, None)
    state = train_state(convolutional(), epochs=1)
    assert (compressor.start(state) is None) == (compressor in WITHOUT_STATE)
    assert (asdict(compressor), list(vars(compressor))) == (settings, attributes)
    train_stage(Stage("sparse", Natural(), Schedule(1, lr=0.01), compressor), state, tmp_path)
    assert (asdict(compressor), list(vars(compressor))) == (settings, attributes)


@pytest.mark.parametrize("compressor", WITH_STATE, ids=class_name)
def test_a_checkpoint_brings_back_all_of_a_run_state_but_what_the_start_makes_anew(
    tmp_path: Path, compressor: Compressor
) -> None:
    written, resumed = (compressor.start(train_state(convolutional())) for _ in range(2))
    names = {f.name for f in fields(written)}
    transient = {f.name for f in fields(written) if f.metadata == TRANSIENT}
    for name in names:
        setattr(written, name, another(getattr(written, name)))
    torch.save(capture(written), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(saved) == names - transient
    started = {name: getattr(resumed, name) for name in names}
    assert not any(same(started[name], getattr(written, name)) for name in names)
    restore(resumed, saved)
    for name in names:
        if name in transient:
            assert getattr(resumed, name) is started[name], name
        else:
            assert same(getattr(resumed, name), getattr(written, name)), name


def test_a_checkpoint_of_other_fields_is_refused() -> None:
    """A field that was renamed without another revision would else keep what `start` put there."""
    state = train_state(convolutional())
    compression = QuantisedL0(0.3, 2).start(state)
    saved = capture(compression)
    restore(compression, saved)
    saved["multipliers"] = saved.pop("duals")
    with pytest.raises(ValueError, match=r"multipliers.*QuantisedL0State"):
        restore(compression, saved)
