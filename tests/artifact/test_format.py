"""model.rcz: bit-exact, as small as its codings promise, and never believed when damaged."""

import json
import math
import struct
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from robcomp.artifact.format import DTYPES, dense_bytes, pack, section_bytes, unpack
from robcomp.errors import UserError


def sparse(shape: tuple[int, ...], density: float, distinct: int | None, seed: int = 0) -> Tensor:
    """A float32 tensor with about `density` non-zeros, of `distinct` values or, with None, all different."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=draw)
    if distinct is not None:
        values = torch.randn(distinct, generator=draw)[torch.randint(distinct, shape, generator=draw)]
    return torch.where(torch.rand(shape, generator=draw) < density, values, 0.0)


def assert_identical(given: Tensor, back: Tensor) -> None:
    """Same dtype, shape and bits, in a contiguous tensor on the CPU."""
    assert (back.dtype, back.shape) == (given.dtype, given.shape)
    assert back.is_contiguous()
    assert back.device.type == "cpu"
    bits = [each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (given, back)]
    assert torch.equal(*bits)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1777,), (16, 8, 3, 3)], ids=str)
@pytest.mark.parametrize("distinct", [1, 2, 5, 255, 256, 257, 300, None])
def test_round_trip_of_every_density(tmp_path: Path, shape: tuple[int, ...], distinct: int | None) -> None:
    given = {str(d): sparse(shape, d, distinct, seed=7) for d in (0.0, 0.001, 0.02, 0.2, 0.5, 0.9, 1.0)}
    pack(given, {}, tmp_path / "model.rcz")
    back, _ = unpack(tmp_path / "model.rcz")
    assert list(back) == list(given)
    for name in given:
        assert_identical(given[name], back[name])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_round_trip_of_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    given = {"many": (sparse((50, 7), 0.3, 9) * 40).to(dtype), "one": torch.tensor(1, dtype=dtype)}
    pack(given, {}, tmp_path / "model.rcz")
    back, _ = unpack(tmp_path / "model.rcz")
    for name in given:
        assert_identical(given[name], back[name])


def test_signed_zero_nan_and_infinity_keep_their_bits(tmp_path: Path) -> None:
    odd = torch.tensor([0.0, -0.0, float("nan"), -float("nan"), float("inf"), -float("inf"), 1e-45] + [0.0] * 90)
    pack({"odd": odd}, {}, tmp_path / "model.rcz")
    back = unpack(tmp_path / "model.rcz")[0]["odd"]
    assert_identical(odd, back)
    assert torch.signbit(back[:2]).tolist() == [False, True]


def test_negative_zeros_cost_bytes_until_they_are_normalised(tmp_path: Path) -> None:
    masked = -torch.ones(8000) * (torch.arange(8000) % 100 == 0)  # what multiplying by a mask leaves: -0.0
    kept = pack({"w": masked}, {}, tmp_path / "kept.rcz")
    dropped = pack({"w": masked + 0.0}, {}, tmp_path / "dropped.rcz")
    assert dropped < kept - 8000 // 8 + 250  # a bit for each entry against some 8 for each of the 80 non-zeros


def test_views_gradients_and_shared_memory(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(sparse((6, 5), 0.5, None))
    given = {"whole": weight, "turned": weight.t(), "every second": weight[::2, 1:]}
    pack(given, {}, tmp_path / "model.rcz")
    back, _ = unpack(tmp_path / "model.rcz")
    for name in given:
        assert_identical(given[name], back[name])
        back[name].add_(1)  # writable, and not tied to each other


def test_header_comes_back_and_bytes_are_the_files(tmp_path: Path) -> None:
    header = {"model": "lenet", "spec": {"layers": ["fc1", "größe"], "ranks": [3, None]}, "bits": 8}
    size = pack({"w": torch.ones(3)}, header, tmp_path / "run" / "model.rcz")
    assert unpack(tmp_path / "run" / "model.rcz")[1] == header
    assert size == (tmp_path / "run" / "model.rcz").stat().st_size
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.rcz"]


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack({"w": sparse((99, 9), 0.1, 30)}, {"seed": 0}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_size_of_a_network_of_430500_weights(tmp_path: Path) -> None:
    """At density 0.005 and 8 bits: values, positions within 3 % of their entropy, one codebook, a small header."""
    n, k = 430_500, 2152
    draw = torch.Generator().manual_seed(1)
    weight = torch.zeros(n)
    book = torch.randn(256, generator=draw)
    weight[torch.randperm(n, generator=draw)[:k]] = torch.cat(
        (book, book[torch.randint(256, (k - 256,), generator=draw)])
    )
    size = pack({"w": weight.reshape(861, 500)}, {"model": "one layer"}, tmp_path / "model.rcz")
    position_bits = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
    assert 9.0 < position_bits / k < 9.2
    ideal = (k * 8 + 256 * 32 + position_bits) / 8
    assert ideal < size < (k * 8 + 256 * 32 + 1.03 * position_bits) / 8 + 120
    assert size < dense_bytes({"w": weight}) / 290


def test_dense_bytes_is_the_safetensors_file(tmp_path: Path) -> None:
    shared = torch.randn(10, 4)
    tensors = {"w": shared.double(), "tied": shared, "twin": shared, "view": shared[::2].t(), "count": torch.tensor(3)}
    expected = {name: tensor.float().clone().contiguous() for name, tensor in tensors.items()} | {
        "count": torch.tensor(3)
    }
    safetensors.torch.save_file(expected, tmp_path / "dense.safetensors")
    assert dense_bytes(tensors) == (tmp_path / "dense.safetensors").stat().st_size


def test_other_dtypes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"'w' is torch\.complex64; a model file holds float32"):
        pack({"w": torch.zeros(2, dtype=torch.complex64)}, {}, tmp_path / "model.rcz")
    assert not any(tmp_path.iterdir())


def test_every_byte_of_the_payload_belongs_to_a_tensor(tmp_path: Path) -> None:
    tensors = {
        "sparse": sparse((40, 50), 0.1, 4),
        "dense": torch.randn(7, 3),
        "none": torch.zeros(0),
        "b": torch.arange(3),
    }
    size = pack(tensors, {"model": "lenet"}, tmp_path / "model.rcz")
    found = section_bytes(tmp_path / "model.rcz")
    head, payload = struct.unpack_from("<IQ", (tmp_path / "model.rcz").read_bytes(), 4)
    assert list(found) == list(tensors)
    assert (found["dense"], found["none"]) == (4 * 21, 0)  # all different: stored as they are
    assert 100 < found["sparse"] < 4 * 200
    assert sum(found.values()) == payload
    assert size == payload + head + 20  # magic, version and lengths take 16 bytes, the checksum 4


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A whole small file."""
    path = tmp_path / "model.rcz"
    pack({"w": sparse((40, 5), 0.1, 4), "b": torch.arange(3)}, {"model": "lenet"}, path)
    return path


def test_every_flipped_byte_is_noticed(packed: Path) -> None:
    data = packed.read_bytes()
    for place in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[place] ^= flip
            packed.write_bytes(changed)
            with pytest.raises(UserError, match=r"model\.rcz"):
                unpack(packed)


def test_every_truncation_is_noticed(packed: Path) -> None:
    data = packed.read_bytes()
    for length in range(len(data)):
        packed.write_bytes(data[:length])
        with pytest.raises(UserError, match="cut short" if length >= 3 else "not a robcomp model file"):
            unpack(packed)


def rewritten(data: bytes, text: str, payload: bytes) -> bytes:
    """A file with `data`'s magic and version, another header text and payload, and a checksum that fits."""
    head = zlib.compress(text.encode())
    body = data[:4] + struct.pack("<IQ", len(head), len(payload)) + head + payload
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"PK\x03\x04" + data, "is not a robcomp model file .*give a model.rcz"),
        (lambda data: data[:3] + b"\x01" + data[4:], "version 1, and this robcomp reads version 0: update robcomp"),
        (lambda data: data + b"\n", "is too long .*copy it again"),
        (lambda data: data[:-5] + b"\xff\xff\xff\xff\xff", "is damaged .*copy it again"),
        (lambda data: rewritten(data, "[", b""), "contradicts itself .*copy it again"),
        (lambda data: rewritten(data, "{}", b""), "contradicts itself"),
        (lambda data: rewritten(data, '[{}, [["w"]]]', b""), "contradicts itself"),
        (lambda data: rewritten(data, '[{}, [["w", "float99", [1], "dense-raw"]]]', b"1234"), "contradicts itself"),
        (lambda data: rewritten(data, '[{}, [["w", "float32", [1], "zip"]]]', b"1234"), "unknown coding 'zip'"),
        (lambda data: rewritten(data, '[{}, [["w", "float32", [2], "dense-raw"]]]', b"1234"), "8 bytes are announced"),
        (lambda data: rewritten(data, '[{}, [["w", "float32", [-1], "dense-raw"]]]', b"1234"), "contradicts itself"),
        (lambda data: rewritten(data, '[{}, [["w", "float32", [], "dense-raw"]]]', b"12345"), "belong to no tensor"),
        (
            lambda data: rewritten(data, '[{}, [["w", "uint8", [3], "sparse-raw", 1, 0, 1]]]', b"\x01\x05"),
            "contradicts",
        ),
        (lambda data: rewritten(data, '[{}, [["w", "uint8", [3], "sparse-raw"]]]', b""), "contradicts itself"),
    ],
)
def test_each_fault_has_its_sentence(packed: Path, change, sentence: str) -> None:
    packed.write_bytes(change(packed.read_bytes()))
    with pytest.raises(UserError, match=sentence) as caught:
        unpack(packed)
    assert str(packed) in str(caught.value)
    with pytest.raises(UserError, match=sentence):
        section_bytes(packed)


def test_absent_files_and_folders_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.rcz", tmp_path):
        with pytest.raises(UserError, match=r"cannot read the model file .*check the path"):
            unpack(path)


def test_records_are_plain_json(packed: Path) -> None:
    """What docs say of the header: zlib-compressed JSON after 16 bytes, caller's header first."""
    data = packed.read_bytes()
    length = struct.unpack_from("<I", data, 4)[0]
    header, records = json.loads(zlib.decompress(data[16 : 16 + length]))
    assert header == {"model": "lenet"}
    assert [record[:3] for record in records] == [["w", "float32", [40, 5]], ["b", "int64", [3]]]
