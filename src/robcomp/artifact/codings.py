"""Lossless codings of one tensor: which positions are listed, and how their values are written.

A tensor is seen as its bit patterns: unsigned integers as wide as its numbers ("words"). Zero means the pattern of
all zero bits; -0.0 and every NaN are patterns like any other and come back as they were. The four codings are
positions (all, or those that are not zero) times values (raw, or indices into a codebook of the distinct ones):

    dense-raw        every word as it is
    dense-codebook   codebook of all distinct words, then an index for every position; a constant costs one word
    sparse-raw       Rice-coded positions of the words that are not zero, then those words; all zeros cost nothing
    sparse-codebook  the same positions, a codebook of the distinct words that are not zero, then their indices

Indices take ceil(log2(distinct)) bits, so none at all where there is one value.
"""

from dataclasses import dataclass

import numpy as np

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

CODINGS = ("dense-raw", "dense-codebook", "sparse-raw", "sparse-codebook")  # of two as short, the first is taken


class Survey:
    """What all codings of `words` [n] (unsigned integers) need to know, found once."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self.book = _distinct(words)
        self.positions = np.flatnonzero(words)
        self.gaps = np.diff(self.positions, prepend=-1) - 1
        self.rice = rice_parameter(self.gaps)

    def listed(self, coding: str) -> tuple[np.ndarray, np.ndarray]:
        """The words that `coding` writes down, and the distinct ones among them in ascending order."""
        if _is_sparse(coding):
            return self.words[self.positions], self.book[self.book != 0]
        return self.words, self.book

    def bytes(self, coding: str) -> int:
        """Bytes of the payload that `encode` makes with `coding`."""
        count = self.positions.size if _is_sparse(coding) else self.words.size
        if _has_codebook(coding):
            distinct = self.listed(coding)[1].size
            total = distinct * self.words.itemsize + fixed_bytes(count, width_of(distinct))
        else:
            total = count * self.words.itemsize
        if _is_sparse(coding):
            unary, remainders = rice_bits(self.gaps, self.rice)
            total += fixed_bytes(unary, 1) + fixed_bytes(remainders, 1)
        return total

    def cheapest(self) -> str:
        """The coding with the fewest bytes."""
        return min(CODINGS, key=self.bytes)


@dataclass
class Reader:
    """Consecutive pieces of `data`; ValueError where it ends too early."""

    data: bytes
    offset: int = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= len(self.data) - self.offset:
            raise ValueError(f"{count} bytes are announced and {len(self.data) - self.offset} are left")
        self.offset += count
        return self.data[self.offset - count : self.offset]


def encode(survey: Survey, coding: str) -> tuple[list[int], bytes]:
    """The surveyed words in `coding`: the numbers that `decode` needs besides the payload, and the payload.

    Numbers: for sparse codings the count of listed words, the Rice parameter and the bytes of the unary part; then,
    with a codebook, its length.
    """
    values, book = survey.listed(coding)
    numbers: list[int] = []
    payload: list[bytes] = []
    if _is_sparse(coding):
        unary, remainders = pack_rice(survey.gaps, survey.rice)
        numbers += [values.size, survey.rice, len(unary)]
        payload += [unary, remainders]
    if _has_codebook(coding):
        numbers.append(book.size)
        payload += [_to_bytes(book), pack_fixed(np.searchsorted(book, values), width_of(book.size))]
    else:
        payload.append(_to_bytes(values))
    return numbers, b"".join(payload)


def decode(coding: str, numbers: list[int], count: int, itemsize: int, reader: Reader) -> np.ndarray:
    """The `count` words of `itemsize` bytes behind a payload; ValueError or IndexError where it contradicts itself."""
    if coding not in CODINGS:
        raise ValueError(f"unknown coding '{coding}'")
    left = list(numbers)
    listed, positions = count, None
    if _is_sparse(coding):
        listed, rice, unary = left.pop(0), left.pop(0), left.pop(0)
        gaps = unpack_rice(reader.take(unary), reader.take(fixed_bytes(listed, rice)), rice, listed)
        positions = np.cumsum(gaps + 1) - 1
    if _has_codebook(coding):
        distinct = left.pop(0)
        book = _from_bytes(reader.take(distinct * itemsize), itemsize)
        width = width_of(distinct)
        values = book[unpack_fixed(reader.take(fixed_bytes(listed, width)), width, listed)]
    else:
        values = _from_bytes(reader.take(listed * itemsize), itemsize)
    if positions is None:
        return values
    words = np.zeros(count, dtype=values.dtype)
    words[positions] = values
    return words


def _distinct(words: np.ndarray) -> np.ndarray:
    """The distinct words in ascending order; np.unique of numpy 2.4 hashes: 4.6 s for 5 M floats instead of 0.04 s."""
    ordered = np.sort(words)
    first = np.ones(ordered.size, dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _is_sparse(coding: str) -> bool:
    return coding.startswith("sparse")


def _has_codebook(coding: str) -> bool:
    return coding.endswith("codebook")


def _to_bytes(words: np.ndarray) -> bytes:
    """Words in little-endian order, whatever the machine's."""
    return words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()


def _from_bytes(data: bytes, itemsize: int) -> np.ndarray:
    """Words from little-endian bytes, in the machine's order and writable."""
    return np.frombuffer(data, dtype=f"<u{itemsize}").astype(f"u{itemsize}")
