"""Packed bits and Rice codes: what goes in comes out, in the bytes that were promised."""

import numpy as np
import pytest

from robcomp.artifact.bits import (
    fixed_bytes,
    pack_fixed,
    pack_rice,
    rice_bits,
    rice_parameter,
    unpack_fixed,
    unpack_rice,
    width_of,
)


@pytest.mark.parametrize(("count", "width"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)])
def test_width_is_ceil_log2(count: int, width: int) -> None:
    assert width_of(count) == width


@pytest.mark.parametrize("width", [0, 1, 3, 8, 9, 17, 31])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 1001])
def test_fixed_width_round_trip(width: int, count: int) -> None:
    values = np.random.default_rng(width).integers(0, 2**width, count)
    data = pack_fixed(values, width)
    assert len(data) == fixed_bytes(count, width) == -(-count * width // 8)
    assert np.array_equal(unpack_fixed(data, width, count), values)


def test_fixed_width_refuses_another_length() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        unpack_fixed(b"\x00", 3, 3)


def test_bit_planes_by_hand() -> None:
    # 1, 2, 3 in two bits: low plane 1 0 1, high plane 0 1 1, then two bits of padding
    assert pack_fixed(np.array([1, 2, 3]), 2) == bytes([0b10101100])


def test_rice_by_hand() -> None:
    # parameter 1: 5 = 2 * 2 + 1, 0 = 2 * 0 + 0, 2 = 2 * 1 + 0: unary 001 1 01, remainders 1 0 0
    unary, remainders = pack_rice(np.array([5, 0, 2]), 1)
    assert (unary, remainders) == (bytes([0b00110100]), bytes([0b10000000]))


def test_rice_with_parameter_zero_is_the_bitmap() -> None:
    positions = np.array([0, 3, 4, 9])
    unary, remainders = pack_rice(np.diff(positions, prepend=-1) - 1, 0)
    bitmap = np.isin(np.arange(10), positions)
    assert (unary, remainders) == (np.packbits(bitmap).tobytes(), b"")


@pytest.mark.parametrize("density", [0.9, 0.3, 0.05, 0.005, 0.0005])
@pytest.mark.parametrize("parameter", [0, 1, 5, 12])
def test_rice_round_trip(density: float, parameter: int) -> None:
    gaps = np.random.default_rng(3).geometric(density, 500) - 1
    unary, remainders = pack_rice(gaps, parameter)
    sizes = tuple(fixed_bytes(bits, 1) for bits in rice_bits(gaps, parameter))
    assert (len(unary), len(remainders)) == sizes
    assert np.array_equal(unpack_rice(unary, remainders, parameter, 500), gaps)


@pytest.mark.parametrize("density", [1.0, 0.7, 0.2, 0.01, 0.0001])
def test_the_chosen_parameter_is_the_best_of_all(density: float) -> None:
    gaps = np.random.default_rng(4).geometric(density, 300) - 1
    costs = [sum(rice_bits(gaps, parameter)) for parameter in range(25)]
    assert costs[rice_parameter(gaps)] == min(costs)


def test_rice_of_nothing() -> None:
    none = np.array([], dtype=np.int64)
    assert rice_parameter(none) == 0
    assert pack_rice(none, 0) == (b"", b"")
    assert unpack_rice(b"", b"", 0, 0).size == 0


def test_rice_refuses_another_count() -> None:
    unary, remainders = pack_rice(np.array([5, 0, 2]), 1)
    with pytest.raises(ValueError, match="3 positions where 2"):
        unpack_rice(unary, remainders, 1, 2)
