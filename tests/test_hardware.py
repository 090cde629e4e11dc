"""What computes: exact products inside `exact_float32`, and the machine's own settings again afterwards."""

from collections.abc import Iterator

import pytest
import torch

from robcomp.hardware import exact_float32


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def allow(matmul: bool, cudnn: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.fixture(params=[(True, False), (False, True)])
def chosen(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """Settings that the test begins with; the process has its own back in the end."""
    own = allowed()
    allow(*request.param)
    yield request.param
    allow(*own)


def test_float32_is_exact_inside_and_as_it_was_afterwards(chosen: tuple[bool, bool]) -> None:
    with exact_float32():
        assert allowed() == (False, False)
    assert allowed() == chosen


def stopped() -> None:
    with exact_float32():
        raise KeyboardInterrupt


def test_settings_come_back_after_an_error(chosen: tuple[bool, bool]) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert allowed() == chosen
