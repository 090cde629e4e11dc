"""Whole numbers as packed bits: a fixed number of bits each, or Rice codes for the gaps between positions."""

import numpy as np


def width_of(count: int) -> int:
    """Bits that tell `count` things apart: ceil(log2(count)), and 0 for one thing or none."""
    return max(count - 1, 0).bit_length()


def fixed_bytes(count: int, width: int) -> int:
    """Bytes that `pack_fixed` makes of `count` numbers of `width` bits."""
    return (count * width + 7) // 8


def pack_fixed(values: np.ndarray, width: int) -> bytes:
    """The `width` low bits of each of `values` [n] (non-negative integers), as bit planes, lowest plane first.

    Planes follow each other without a gap, so only the last byte is padded; with them no value is ever
    expanded to more than one byte a bit, whatever the width.
    """
    planes = np.empty((width, values.size), dtype=np.uint8)
    for bit in range(width):
        planes[bit] = (values >> bit) & 1
    return np.packbits(planes).tobytes()


def unpack_fixed(data: bytes, width: int, count: int) -> np.ndarray:
    """The `count` numbers (int64) that `pack_fixed` packed into `data`; ValueError if its length is not theirs."""
    if len(data) != fixed_bytes(count, width):
        raise ValueError(f"{len(data)} bytes cannot hold {count} numbers of {width} bits")
    planes = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=width * count).reshape(width, count)
    values = np.zeros(count, dtype=np.int64)
    for bit in range(width):
        values |= planes[bit].astype(np.int64) << bit
    return values


def rice_bits(gaps: np.ndarray, parameter: int) -> tuple[int, int]:
    """Bits of the two parts of the Rice codes of `gaps`: the unary quotients and the `parameter`-bit remainders."""
    return int((gaps >> parameter).sum()) + gaps.size, gaps.size * parameter


def rice_parameter(gaps: np.ndarray) -> int:
    """The parameter with which the Rice codes of `gaps` [n] (non-negative integers) are shortest.

    The length is convex in the parameter: each step adds n bits and saves sum(ceil((gap >> parameter) / 2)), which
    can only shrink. So the first step that does not pay ends the search.
    """
    parameter = 0
    while sum(rice_bits(gaps, parameter + 1)) < sum(rice_bits(gaps, parameter)):
        parameter += 1
    return parameter


def pack_rice(gaps: np.ndarray, parameter: int) -> tuple[bytes, bytes]:
    """Rice codes of `gaps`, split in two: quotients in unary (that many 0 bits, then a 1) and remainders, packed.

    With parameter 0 the unary part is the bitmap of the positions, cut after the last one, and there are no
    remainders: so one coding covers bitmaps (dense support) and delta-coded positions (sparse support).
    Source: Rice and Plaunt, 1971; the split of the two parts is that of Elias and Fano.
    """
    ends = np.cumsum((gaps >> parameter) + 1) - 1
    unary = np.zeros(rice_bits(gaps, parameter)[0], dtype=np.uint8)
    unary[ends] = 1
    return np.packbits(unary).tobytes(), pack_fixed(gaps & ((1 << parameter) - 1), parameter)


def unpack_rice(unary: bytes, remainders: bytes, parameter: int, count: int) -> np.ndarray:
    """The `count` gaps (int64) that `pack_rice` coded; ValueError if the unary part holds another number of them."""
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(unary, dtype=np.uint8)))
    if ends.size != count:
        raise ValueError(f"{ends.size} positions where {count} are announced")
    quotients = np.diff(ends, prepend=-1) - 1
    return (quotients << parameter) | unpack_fixed(remainders, parameter, count)
