"""What an attack maximises, one number an image, and its gradient with respect to the image alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.errors import UserError, unknown

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits [N, K], labels [N]) -> [N]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(z)_y, [N]."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The highest other logit minus that of y, [N]: above 0 exactly where the image is misclassified (ties apart).

    Source: Carlini and Wagner, 2017, f_6 without the confidence term.
    """
    return others(logits, y).amax(1) - own(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the gap between the highest and the third highest logit, [N].

    Unchanged when the logits are shifted or scaled. With two classes there is no third logit and it is the margin.
    Source: Croce and Hein, 2020, eq. 6.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(z_target - z_y) over the gap between the highest logit and the mean of the third and the fourth, [N].

    With three classes the gap is that to the third, with two the difference itself is returned.
    Source: Croce and Hein, 2020, eq. 7.
    """
    difference = own(logits, target) - own(logits, y)
    if logits.shape[1] < 3:
        return difference
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    return difference / (top[:, 0] - top[:, 2:].mean(1) + TINY)


TINY = 1e-12  # keeps the ratios finite where the top logits are equal
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def loss_named(name: str, *others: str) -> Loss:
    """The loss of a configuration's name; UserError for another (`others` are names that the caller knows besides)."""
    if name not in LOSSES:
        raise unknown("loss", name, [*LOSSES, *others])
    return LOSSES[name]


@dataclass(frozen=True)
class Divergence:
    """KL(p || softmax(z)) of each image, [N], from the log-probabilities log p [N, K] of the network's answer to x."""

    log_p: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        return F.kl_div(logits.log_softmax(1), self.log_p, reduction="none", log_target=True).sum(1)


def own(logits: Tensor, y: Tensor) -> Tensor:
    """Each image's logit of its class y, [N]."""
    return logits.gather(1, y[:, None])[:, 0]


def others(logits: Tensor, y: Tensor) -> Tensor:
    """The logits with that of y at minus infinity, [N, K]."""
    return logits.scatter(1, y[:, None], -torch.inf)


def gradient(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(loss [N], d loss / d x [N, C, H, W], logits [N, K]), by one forward and one backward pass.

    `loss` maps the logits to one number an image. No weight gradient is computed. Where no path leads from the input
    to the output (a rounding, a detached step) the gradient is zero, as it is for a step function; where an entry is
    not finite it is zero too, so that all attacks meet such a network alike. The verdict flags both.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x).float()
        values = loss(logits)
        if not values.requires_grad:
            return values, torch.zeros_like(x), logits
        (slope,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    slope = torch.zeros_like(x) if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)
    return values.detach(), slope, logits.detach()


def targets(logits: Tensor, y: Tensor, count: int) -> list[Tensor]:
    """The `count` most likely classes other than y, most likely first: each a Tensor [N]; fewer if there are fewer."""
    order = others(logits, y).argsort(dim=1, descending=True)
    return [order[:, rank] for rank in range(min(count, logits.shape[1] - 1))]


def check_targets(count: int, usual: int, classes: int) -> None:
    """UserError for more targets than other classes; the `usual` number stands for all where they are fewer."""
    if count != usual and count > classes - 1:
        raise UserError(
            f"targets={count} is more than the {classes - 1} other classes of {classes}; give at most {classes - 1}."
        )


def chosen_target(rule: str, logits: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The class [N] that a targeted attack aims for: 'least_likely', 'second' (most likely other), 'random', or '+k'.

    '+5' is (y + 5) mod K, the rule of the ATMC code's other_attack_test.py.
    """
    classes = logits.shape[1]
    if rule == "least_likely":
        return logits.scatter(1, y[:, None], torch.inf).argmin(1)
    if rule == "second":
        return others(logits, y).argmax(1)
    if rule == "random":
        return (y + torch.randint(1, classes, y.shape, generator=generator, device=y.device)) % classes
    check_target(rule, classes)
    return (y + int(rule)) % classes


def check_target(rule: str, classes: int | None = None) -> None:
    """UserError unless `rule` is '' (untargeted) or one that `chosen_target` knows, and leads to another class."""
    if rule in ("", "least_likely", "second", "random"):
        return
    if not (rule.startswith("+") and rule[1:].isdigit() and int(rule) > 0):
        raise UserError(f"target={rule!r} is not a rule; choose least_likely, second, random, or a shift such as '+5'.")
    if classes is not None and int(rule) % classes == 0:
        raise UserError(f"target={rule} is the class itself among {classes} classes; give another shift.")
