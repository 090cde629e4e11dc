"""What report.json says of a network's size, densities and operations: every key with its meaning."""

from dataclasses import dataclass

from robcomp.report.records import meaning


@dataclass(frozen=True, kw_only=True)
class CountedSize:
    """A size that is counted from the weights."""

    definition: str = meaning("in words, what counts and what the fraction is of")
    bits: int = meaning("the size in bits")
    fraction: float = meaning("of the dense convolution and linear weights at 32 bits")

    @property
    def bytes(self) -> float:
        """The size in bytes."""
        return self.bits / 8


@dataclass(frozen=True, kw_only=True)
class FileSize:
    """A size that is read off the disk."""

    definition: str = meaning("in words, what counts and what the fraction is of")
    bytes: int = meaning("bytes of model.rcz; of the state as a float32 file for an architecture of one's own")
    dense_bytes: int = meaning("bytes of the dense network as a float32 file")
    fraction: float = meaning("`bytes` / `dense_bytes`")


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of the network by three definitions: what lies on the disk, then two that count less."""

    dense_weights: int = meaning("convolution and linear weights of the dense model; no biases, no batch normalisation")
    nonzero: int = meaning("stored non-zero weights, over all tensors that store a layer's weight")
    bits: int = meaning("nominal bits of one stored weight, 32 without quantisation")
    file: FileSize = meaning("real bytes of the compressed file `model.rcz`: positions, biases and header included")
    coded: CountedSize = meaning("non-zeros x bits and codebooks, as the published ATMC code counts; no positions")
    nominal: CountedSize = meaning("the papers' size: non-zeros x bits; no positions, no codebooks")

    def named(self) -> dict[str, CountedSize | FileSize]:
        """The three sizes by name, the real one first."""
        return {"file": self.file, "coded": self.coded, "nominal": self.nominal}


@dataclass(frozen=True, kw_only=True)
class TensorSize:
    """A tensor that stores a layer's weight, or a part of it."""

    name: str = meaning("`weight`, or a factor: `U`, `V`, `C` of W = U V + C")
    shape: list[int] = meaning("its shape")
    weights: int = meaning("its entries")
    nonzero: int = meaning("its non-zero entries")
    distinct: int = meaning("its distinct non-zero values")
    bytes: int | None = meaning("its bytes in model.rcz, the header apart", default=None)


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """A convolution or linear layer; of an architecture of one's own, any with a weight of two dimensions or more."""

    name: str = meaning("name of the layer")
    weights: int = meaning("weights of its dense form")
    nonzero: int = meaning("stored non-zeros of its tensors together")
    density: float = meaning("`nonzero` / `weights`; with factors it can exceed 1")
    rank: int | None = meaning("rank of a layer stored as W = U V of low rank (method=alr)", default=None)
    channels: list[int] | None = meaning(
        "[inputs that some non-zero weight reads, all inputs]; not of a layer stored as factors or in groups",
        default=None,
    )
    filters: list[int] | None = meaning(
        "[outputs that some non-zero weight feeds, all outputs]; not of a layer stored as factors", default=None
    )
    tensors: list[TensorSize] = meaning("the tensors that store its weight")


@dataclass(frozen=True, kw_only=True)
class Density:
    """How many weights are left, exact counts."""

    total: float = meaning("`size.nonzero` / `size.dense_weights`")
    channels: list[int] | None = meaning(
        "[input channels with a non-zero weight, all of them], over the convolutions together (DNR's \"% channel "
        'present"); absent where every layer is stored as factors',
        default=None,
    )
    layers: list[LayerSize] = meaning("layer by layer, in the network's order")


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """The operations of one layer."""

    name: str = meaning("name of the layer")
    dense: int = meaning("of its dense form")
    executed: int = meaning("as it is computed")
    nonzero: int = meaning("of these, with a non-zero weight")


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-accumulate operations of the convolutions and linear layers for one image."""

    definition: str = meaning("in words, what counts")
    dense: int = meaning("of the dense network")
    executed: int = meaning("as robcomp computes this network: low-rank layers as two products, zeros like any number")
    nonzero: int = meaning("those of the executed ones whose weight is not zero: for hardware that skips every zero")
    layers: list[LayerMacs] = meaning("layer by layer")
