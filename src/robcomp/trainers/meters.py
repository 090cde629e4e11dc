"""What an epoch's training batches come to: losses and accuracies, summed on the device."""

from typing import Any

import torch

from robcomp.trainers.objectives import Loss


class Meters:
    """Sums over an epoch, kept on the device; reading them is the only host synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, device=device, dtype=torch.float64)  # two losses, two counts of correct
        self.reset()

    def reset(self) -> None:
        self.sums.zero_()
        self.steps = self.images = 0
        self.counted = [0, 0, 0]  # steps with an adversarial loss; images seen clean, and under attack

    def add(self, loss: Loss, images: int) -> None:
        zero, parts = torch.zeros((), device=self.sums.device), (loss.adversarial, loss.clean, loss.robust)
        found = [zero if part is None else part.double() for part in parts]
        self.sums += torch.stack([loss.value.detach().double(), *found])
        counts = zip(self.counted, parts, (1, images, images), strict=True)
        self.counted = [count + (0 if part is None else more) for count, part, more in counts]
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float | None]:
        """Mean losses, and the fractions classified correctly in the batches as trained on (None where not counted)."""
        loss, *sums = self.sums.tolist()
        known = zip(sums, self.counted, strict=True)
        adversarial, clean, robust = (value / count if count else None for value, count in known)
        return {"loss": loss / self.steps, "adversarial_loss": adversarial, "clean": clean, "robust": robust}

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "steps": self.steps, "images": self.images, "counted": self.counted}

    def load(self, saved: dict[str, Any]) -> None:
        self.sums.copy_(saved["sums"])
        self.steps, self.images, self.counted = saved["steps"], saved["images"], saved["counted"]
