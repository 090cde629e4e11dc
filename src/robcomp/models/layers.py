"""Conv and linear layers whose weight is several tensors: W = U V + C (ATMC), and W = U V of low rank (ALR)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.projections import factors


class Composite(nn.Module):
    """A conv or linear layer that holds its weight as the parameters named in `parts`; made from a dense layer.

    `shape` is the dense weight's; `conv` the convolution's geometry, None for a linear layer. Matrices are views
    out x (in kh kw) of it.
    """

    parts: ClassVar[tuple[str, ...]]

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.shape = tuple(layer.weight.shape)
        self.bias = layer.bias
        conv = isinstance(layer, nn.Conv2d)
        self.conv = {k: getattr(layer, k) for k in ("stride", "padding", "dilation")} if conv else None

    def stored(self) -> dict[str, Tensor]:
        """The tensors that hold the weight, by name."""
        return {part: getattr(self, part) for part in self.parts}

    def weight(self) -> Tensor:
        """The weight multiplied out, in the dense layer's shape."""
        raise TypeError(f"{type(self).__name__} defines no weight()")


class Factored(Composite):
    """A conv or linear layer with weight W = U V + C on the matrix view out x (in kh kw), of full rank r = min of both.

    U [out, r], V [r, in*kh*kw], C [out, in*kh*kw]. With the identity, W = U (V + I) + C where V is square, and
    W = (U + I) V + C otherwise; I is neither stored nor counted. Either way W equals the dense weight at the start and
    the non-zeros are as many, but for U without the identity: it then starts as a stored identity on the rows in use.
    Source: ATMC (NeurIPS 2019), equation 4; the identity is in the published code (super_class.Conv2dsp_v2) only.
    """

    parts = ("U", "V", "C")

    def __init__(self, layer: nn.Conv2d | nn.Linear, identity: bool) -> None:
        super().__init__(layer)
        matrix = layer.weight.detach().flatten(1).clone()
        out, inputs = matrix.shape
        self.identity = identity
        self.square_v = inputs <= out  # r = in*kh*kw, so V is square
        zeros = matrix.new_zeros
        rank = min(out, inputs)
        U, V = zeros(out, rank), zeros(rank, inputs)
        if self.square_v:
            U = matrix
            if not identity:
                V = torch.diag((matrix != 0).any(0).to(matrix.dtype))
        else:
            V = matrix
            if not identity:
                U = torch.diag((matrix != 0).any(1).to(matrix.dtype))
        self.U, self.V, self.C = nn.Parameter(U), nn.Parameter(V), nn.Parameter(zeros(out, inputs))
        self.multiplied_out: Tensor | None = None

    def weight(self) -> Tensor:
        """The effective weight in the dense layer's shape, built anew (float32, also under autocast)."""
        with torch.autocast(self.U.device.type, enabled=False):
            matrix = torch.addmm(self.C, self.U, self.V)
            if self.identity:
                matrix = matrix + (self.U if self.square_v else self.V)
            return matrix.view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.multiplied_out if self.multiplied_out is not None else self.weight()
        if self.conv is None:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, **self.conv)


class LowRank(Composite):
    """A conv or linear layer with weight W = U V of rank r, computed as two smaller products: V's, then U's.

    U [out, r] = P sqrt(S) and V [r, in*kh*kw] = sqrt(S) Q^T of the r largest singular values of the dense weight
    P S Q^T: the nearest matrix of that rank. A convolution becomes one of r kernels and a 1x1 convolution.
    With `empty` the factors are zeros, to be filled by a state dict. Source: ALR, ATMC paper, baselines.
    """

    parts = ("U", "V")

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int, empty: bool = False) -> None:
        super().__init__(layer)
        matrix = layer.weight.detach().flatten(1)
        out, inputs = matrix.shape
        U, V = (matrix.new_zeros(out, rank), matrix.new_zeros(rank, inputs)) if empty else factors(matrix, rank)
        self.U, self.V = nn.Parameter(U.contiguous()), nn.Parameter(V.contiguous())

    @property
    def rank(self) -> int:
        return self.U.shape[1]

    def weight(self) -> Tensor:
        return (self.U @ self.V).view(self.shape)

    def kernels(self) -> tuple[Tensor, Tensor]:
        """The weights of the two products, V's first, as the conv or linear function takes them."""
        if self.conv is None:
            return self.V, self.U
        return self.V.view(self.rank, *self.shape[1:]), self.U.view(*self.U.shape, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner, outer = self.kernels()
        if self.conv is None:
            return F.linear(F.linear(x, inner), outer, self.bias)
        return F.conv2d(F.conv2d(x, inner, **self.conv), outer, self.bias)
