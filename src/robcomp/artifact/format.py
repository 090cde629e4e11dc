"""`model.rcz`, version 0: every tensor of a network and a header in one file, small and without pickle.

    4 bytes   b"RCZ" and the version (0)
    12 bytes  length of the header (uint32) and of the payload (uint64), little-endian
    header    zlib-compressed JSON: [caller's header, [[name, dtype, shape, coding, *numbers], ...]]
    payload   the tensors' sections one after another, in the order of the records (codings.py)
    4 bytes   CRC-32 of everything before it (uint32), which finds accidents, not forgery

Each tensor takes the shortest of the codings, chosen by its exact bytes. All are lossless down to the bit, so -0.0
stays -0.0; it then counts as a value and not as a zero, and whoever wants it dropped adds 0.0 before packing.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from robcomp.artifact.codings import Reader, Survey, decode, encode
from robcomp.errors import UserError
from robcomp.storage import write_atomic

MAGIC = b"RCZ"
VERSION = 0
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_LENGTHS = struct.Struct("<IQ")
_CHECKSUM = struct.Struct("<I")
_START = len(MAGIC) + 1 + _LENGTHS.size
_REMEDY = "copy it again from where it was made, or make it again by a run with fresh=true."


def pack(tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> int:
    """Write `tensors` and the JSON-able `header` to `path`, atomically; the result is the size of the file in bytes.

    Tensors may lie on any device and in any memory layout; the order of the mapping is kept. A dtype outside DTYPES
    is a TypeError, a header that JSON cannot hold (NaN included) a TypeError or ValueError.
    """
    records, sections = [], []
    for name, tensor in tensors.items():
        survey = Survey(_words(name, tensor))
        coding = survey.cheapest()
        numbers, section = encode(survey, coding)
        records.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), coding, *numbers])
        sections.append(section)
    text = json.dumps([header, records], separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    head, payload = zlib.compress(text.encode(), 9), b"".join(sections)
    body = b"".join((MAGIC, bytes([VERSION]), _LENGTHS.pack(len(head), len(payload)), head, payload))
    data = body + _CHECKSUM.pack(zlib.crc32(body))
    write_atomic(path, lambda temporary: temporary.write_bytes(data))
    return len(data)


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU, contiguous, bit for bit as they were packed) and the header of the file at `path`.

    UserError, with the file, the fault and the remedy, for a file that is absent, of another kind, of a newer
    version, cut short, too long, changed, or inconsistent in itself.
    """
    sections, header = _sections(path)
    return {name: tensor for name, (tensor, _) in sections.items()}, header


def section_bytes(path: Path) -> dict[str, int]:
    """How many bytes of the payload each tensor takes, by its name; UserError as in `unpack`."""
    return {name: count for name, (_, count) in _sections(path)[0].items()}


def dense_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of these tensors as a plain safetensors file, really serialised: floats as float32, others as they are."""
    plain = {}
    for name, tensor in tensors.items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        # a copy of its own for each: safetensors refuses tensors that share memory
        plain[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    return len(safetensors.torch.save(plain))


def _words(name: str, tensor: Tensor) -> np.ndarray:
    """The bit patterns of a tensor's numbers, in row-major order, as unsigned integers [numel]."""
    if tensor.dtype not in DTYPES.values():
        raise TypeError(f"tensor '{name}' is {tensor.dtype}; a model file holds {', '.join(DTYPES)}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().view(f"u{tensor.element_size()}")


def _sections(path: Path) -> tuple[dict[str, tuple[Tensor, int]], dict[str, Any]]:
    """Each tensor with the bytes of its section, and the header; UserError as in `unpack`."""
    head, payload = _parts(path)
    try:
        header, records = json.loads(zlib.decompress(head))
        reader, sections = Reader(payload), {}
        for record in records:
            before = reader.offset
            sections[record[0]] = _tensor(record, reader), reader.offset - before
        if reader.offset != len(payload):
            raise ValueError(f"{len(payload) - reader.offset} bytes belong to no tensor")
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, zlib.error) as error:
        raise UserError(f"{path} contradicts itself ({error}): {_REMEDY}") from error
    return sections, header


def _tensor(record: list[Any], reader: Reader) -> Tensor:
    """The tensor that a header's record describes, from the next bytes of the payload."""
    _, dtype_name, shape, coding, *numbers = record
    dtype = DTYPES[dtype_name]
    words = decode(coding, numbers, math.prod(shape), dtype.itemsize, reader)
    return torch.from_numpy(words.view(np.uint8)).view(dtype).reshape(shape)


def _parts(path: Path) -> tuple[bytes, bytes]:
    """Header and payload of the file at `path`, still coded, once kind, version, length and checksum are right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the model file {path}: {error.strerror}; check the path.") from error
    if not data.startswith(MAGIC):
        raise UserError(f"{path} is not a robcomp model file (these start with {MAGIC.decode()}); give a model.rcz.")
    version = data[len(MAGIC) : len(MAGIC) + 1]
    if version > bytes([VERSION]):
        raise UserError(
            f"{path} is a model file of version {version[0]}, and this robcomp reads version {VERSION}: update robcomp."
        )
    if len(data) < _START:
        raise UserError(f"{path} is cut short ({len(data)} bytes, not even a whole start): {_REMEDY}")
    head, payload = _LENGTHS.unpack_from(data, len(MAGIC) + 1)
    expected = _START + head + payload + _CHECKSUM.size
    if len(data) != expected:
        fault = "is cut short" if len(data) < expected else "is too long"
        raise UserError(f"{path} {fault} ({len(data)} bytes instead of {expected}): {_REMEDY}")
    body = data[: -_CHECKSUM.size]
    if _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0] != zlib.crc32(body):
        raise UserError(f"{path} is damaged (its checksum does not match its content): {_REMEDY}")
    return body[_START : _START + head], body[_START + head :]
