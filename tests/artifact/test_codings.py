"""Every coding is exact and as long as it says, and the shortest is chosen."""

import numpy as np
import pytest

from robcomp.artifact.codings import CODINGS, Reader, Survey, decode, encode


def words_of(count: int, density: float, distinct: int, itemsize: int, seed: int = 0) -> np.ndarray:
    """Random bit patterns: a share `density` of them not zero, taken from `distinct` patterns."""
    draw = np.random.default_rng(seed)
    book = draw.integers(1, 2 ** (8 * itemsize), distinct, dtype=f"u{itemsize}")
    return np.where(draw.random(count) < density, draw.choice(book, count), 0).astype(f"u{itemsize}")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("density", [0.0, 0.004, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("distinct", [1, 2, 3, 16, 255, 256, 257, 300])
def test_round_trip_and_length(coding: str, density: float, distinct: int) -> None:
    for itemsize in (1, 2, 4, 8):
        words = words_of(3000, density, min(distinct, 200) if itemsize == 1 else distinct, itemsize)
        survey = Survey(words)
        numbers, payload = encode(survey, coding)
        reader = Reader(payload)
        back = decode(coding, numbers, words.size, itemsize, reader)
        assert back.dtype == words.dtype
        assert np.array_equal(back, words)
        assert reader.offset == len(payload) == survey.bytes(coding)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("words", [[], [0], [7], [0, 0, 7], [7, 0, 0]])
def test_few_words(coding: str, words: list[int]) -> None:
    given = np.array(words, dtype=np.uint32)
    numbers, payload = encode(Survey(given), coding)
    assert np.array_equal(decode(coding, numbers, given.size, 4, Reader(payload)), given)


@pytest.mark.parametrize(
    ("words", "coding", "length"),
    [
        (np.arange(1, 101, dtype=np.uint32), "dense-raw", 400),
        (np.full(100, 9, dtype=np.uint32), "dense-codebook", 4),  # one entry, indices of no bits
        (np.zeros(100, dtype=np.uint32), "sparse-raw", 0),
        (np.tile(np.array([3, 4], dtype=np.uint32), 40), "dense-codebook", 2 * 4 + 10),
        (np.concatenate((np.arange(8), np.zeros(92))).astype(np.uint32), "sparse-raw", 1 + 7 * 4),  # bitmap of 8 bits
        # 16 ones in 1600: gaps of 99, best at parameter 6: 16 * (99 // 64 + 1) = 32 bits and 16 * 6 = 96 bits
        (np.tile(np.eye(1, 100, 99, dtype=np.uint32)[0], 16), "sparse-codebook", 4 + 12 + 4),
    ],
)
def test_the_shortest_is_chosen(words: np.ndarray, coding: str, length: int) -> None:
    survey = Survey(words)
    assert survey.cheapest() == coding
    assert survey.bytes(coding) == length == min(survey.bytes(each) for each in CODINGS)


def test_decode_refuses_contradictions() -> None:
    words = words_of(100, 0.2, 4, 4)
    numbers, payload = encode(Survey(words), "sparse-codebook")
    with pytest.raises(ValueError, match="unknown coding"):
        decode("zip", numbers, 100, 4, Reader(payload))
    with pytest.raises(ValueError, match="are left"):
        decode("sparse-codebook", numbers, 100, 4, Reader(payload[:-1]))
    with pytest.raises(IndexError):  # positions beyond the tensor
        decode("sparse-codebook", numbers, 5, 4, Reader(payload))
