"""The attacks of training, run on a folded copy of the network: fewer, cheaper passes for the same gradient.

An attack of s steps needs 2s passes during which the weights stand still. So they run on a snapshot: batch norm (in
eval mode an affine map) folded into the convolution before it, factored weights multiplied out, all cast once to the
training precision and held at fixed addresses, which also lets CUDA replay the whole attack as one graph.
"""

import copy

import torch
from torch import Tensor, nn

from robcomp.attacks import PGD, Attack
from robcomp.models.base import ConvBN
from robcomp.models.parameterisation import Factored, WeightLayer, effective_weight


class Snapshot(nn.Module):
    """A copy of `model` that computes the same logits as its eval mode, up to the rounding of `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.dtype, self.memory_format = dtype, memory_format
        self.pairs: list[tuple[WeightLayer, nn.BatchNorm2d | None, nn.Conv2d | nn.Linear]] = []
        self.kept: list[tuple[Tensor, Tensor]] = []  # (source, copy) of what is neither folded nor multiplied out
        self.net = self._copy(model)
        self.net.eval().requires_grad_(False)
        self.refresh()

    def _copy(self, module: nn.Module) -> nn.Module:
        if isinstance(module, ConvBN):
            return self._plain(module.conv, module.bn)
        if isinstance(module, nn.Conv2d | nn.Linear | Factored):
            return self._plain(module, None)
        shell = copy.copy(module)
        shell._modules = {name: self._copy(child) for name, child in module.named_children()}
        shell._parameters = {n: p if p is None else nn.Parameter(p.detach().clone()) for n, p in module._parameters.items()}
        shell._buffers = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
        for held, copies in ((module._parameters, shell._parameters), (module._buffers, shell._buffers)):
            self.kept += [(held[name], tensor) for name, tensor in copies.items() if tensor is not None]
        return shell

    def _plain(self, layer: WeightLayer, bn: nn.BatchNorm2d | None) -> nn.Module:
        shape, bias = effective_weight(layer).shape, bn is not None or layer.bias is not None
        if len(shape) == 2:
            plain = nn.Linear(shape[1], shape[0], bias)
        else:
            how = layer.conv if isinstance(layer, Factored) else _geometry(layer)
            groups = how.get("groups", 1)
            plain = nn.Conv2d(shape[1] * groups, shape[0], shape[2:], bias=bias, **how)
        plain = plain.to(effective_weight(layer).device, self.dtype).to(memory_format=self.memory_format)
        self.pairs.append((layer, bn, plain))
        return plain

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's present weights and running statistics."""
        for layer, bn, plain in self.pairs:
            weight, bias = effective_weight(layer), layer.bias
            if bn is not None:
                scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
                shift = bn.bias - bn.running_mean * scale
                weight = weight * scale.view(-1, 1, 1, 1)
                bias = shift if bias is None else shift + bias * scale
            plain.weight.copy_(weight)
            if bias is not None:
                plain.bias.copy_(bias)
        for source, target in self.kept:
            target.copy_(source)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if x.dim() == 4:
            x = x.contiguous(memory_format=self.memory_format)
        return self.net(x).float()


class Adversary:
    """Runs the inner attack of training on a snapshot of `model`, as a CUDA graph where `graphs` and CUDA allow it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, memory_format: torch.memory_format, graphs: bool) -> None:
        self.model = model
        self.snapshot = Snapshot(model, dtype, memory_format)
        self.graphs = graphs and next(model.parameters()).is_cuda
        self.captured: dict[tuple, _Captured] = {}
        self.violated = torch.zeros((), dtype=torch.bool, device=next(model.parameters()).device)

    def __call__(self, attack: Attack, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """x_adv for the weights as they are now. Its check is a flag on the device: see `verify`."""
        if attack.bn_mode == "train":  # the papers' quirk needs batch statistics, so it runs on the model itself
            return attack(self.model, x, y, generator)
        self.snapshot.refresh()
        if self.graphs and isinstance(attack, PGD) and attack.restarts == 1:
            x_adv = self._replay(attack, x, y, generator)
        else:
            x_adv = attack.perturb(self.snapshot, x, y, generator).detach()
        self.violated |= attack.threat.violated(x_adv, x)
        return x_adv

    def verify(self) -> None:
        """ValueError if any attack since the last call left its ball or [0, 1]; one host synchronisation."""
        if bool(self.violated):
            raise ValueError("an inner attack left its eps ball or [0, 1], or returned NaN: the training has diverged")
        self.violated.zero_()

    def _replay(self, attack: PGD, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        key = (id(attack), tuple(x.shape))
        if key not in self.captured:
            self.captured[key] = _Captured(attack, self.snapshot, x, y)
        return self.captured[key](x, y, attack.start(x, generator))


class _Captured:
    """One attack on one batch shape, recorded once as a CUDA graph; inputs are copied in, the result copied out."""

    def __init__(self, attack: PGD, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.start = x.clone(), y.clone(), x.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # cuDNN picks its algorithms outside the recording
            for _ in range(2):
                attack.ascend(model, self.x, self.y, self.start)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = attack.ascend(model, self.x, self.y, self.start)

    def __call__(self, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        self.x.copy_(x)
        self.y.copy_(y)
        self.start.copy_(start)
        self.graph.replay()
        return self.result.clone()


def _geometry(conv: nn.Conv2d) -> dict:
    return {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
