"""The attacks of training, run on a snapshot of the network."""

import torch
from torch import Tensor, nn

from robcomp.attacks.base import Attack, adversary_view
from robcomp.models.snapshot import Snapshot


class Adversary:
    """Runs the inner attack of training on a snapshot of `model`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        self.model = model
        self.snapshot = Snapshot(model, dtype, memory_format)
        self.violated = torch.zeros((), dtype=torch.bool, device=next(model.parameters()).device)

    def __call__(self, attack: Attack, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """x_adv for the weights as they are now. Its check is a flag on the device: see `verify`."""
        self.snapshot.refresh()  # validation classifies with it, whichever network is attacked
        if attack.bn_mode == "train":  # the papers' quirk needs batch statistics, so it runs on the model itself
            with adversary_view(self.model, "train"):
                x_adv = attack.perturb(self.model, x, y, generator).detach()
        else:
            x_adv = attack.perturb(self.snapshot, x, y, generator).detach()
        self.violated |= attack.threat.violated(x_adv, x)
        return x_adv

    def verify(self) -> None:
        """ValueError if any attack since the last call left its ball or [0, 1]; one host synchronisation."""
        if bool(self.violated):
            raise ValueError("an inner attack left its eps ball or [0, 1], or returned NaN: the training has diverged")
        self.violated.zero_()
