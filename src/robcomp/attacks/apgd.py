"""Auto-PGD: gradient ascent that sets its own step size, with three losses."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robcomp.attacks.active_set import ActiveSet, runs_at_once
from robcomp.attacks.base import ATTACKS, Attack, norms, per_image
from robcomp.attacks.losses import check_targets, cross_entropy, dlr, gradient, targeted_dlr, targets
from robcomp.errors import UserError

MOMENTUM = 0.75  # share of the new step in a move; the rest repeats the last move


@dataclass
class APGD(Attack):
    """Projected gradient ascent with momentum, its step size halved where progress stalls; the loss is the subclass's.

    Each of `restarts` runs begins at a random point on the ball's surface with steps of 2 * eps. At each checkpoint an
    image whose loss rose in at most `rho` of the steps since the last one, or whose step and best loss are both the
    same as then, gets half the step and goes on from its best point. A fooled image is returned as it is and costs no
    further pass; one that withstands is returned at its highest loss. Start points are drawn for the whole batch, so
    in eval mode no image's result depends on when others leave.

    Source: Croce and Hein, ICML 2020, algorithm 1; checkpoints as integers and "at most rho" as in the authors' code.
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps", "restarts")
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho={self.rho:g} is out of range; allowed is [0, 1].")

    @property
    def cost(self) -> int:
        """`steps` points of a run need both passes, its last one the forward pass alone."""
        return self.restarts * (2 * self.steps + 1)

    def loss(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """What is maximised, one number an image: [N, K], [N], [N] to [N]. What each subclass defines."""
        raise TypeError(f"{type(self).__name__} defines no loss()")

    def targets_of(self, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        """The classes [N] to aim for, one run each; untargeted attacks make one run and look at none."""
        return [y]

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        result, highest = x.clone(), x.new_full((len(x),), -torch.inf)
        left = torch.arange(len(x), device=x.device)
        aims = self.targets_of(model, x, y) * self.restarts if len(x) else []
        while aims and len(left):
            runs = min(runs_at_once(len(left), len(x)), len(aims))
            target, rows = torch.cat([aim[left] for aim in aims[:runs]]), left.repeat(runs)
            start = torch.cat([self.start(x, generator)[left] for _ in range(runs)])
            run = Run(rows, x[rows], y[rows], target, start)
            self._ascend(model, run, result)
            left, aims = run.keep_best(result, highest, runs), aims[runs:]
        return result

    def start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x + eps * u / |u|, then clipped: u uniform in the cube (Linf) or normal (L2), so on the ball's surface."""
        if self.norm == "Linf":
            u = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
        else:
            u = torch.randn(x.shape, generator=generator, device=x.device)
        return self.threat.project(x + u * per_image(self.threat.eps / norms(u, self.norm).clamp_min(1e-12), x), x)

    def _ascend(self, model: nn.Module, run: "Run", result: Tensor) -> None:
        """One run; those it fools are written into `result` and leave `run`."""
        intervals = checkpoints(self.steps)
        run.step = torch.full_like(run.loss, 2 * self.threat.eps)
        self._look(model, run, result, slope=True)
        run.rises.zero_()
        run.checked = run.best_loss
        for k in range(1, self.steps + 1):
            if not len(run.index):
                return
            self._move(run, MOMENTUM if k > 1 else 1.0)
            self._look(model, run, result, slope=k < self.steps)
            if k in intervals:
                self._check_progress(run, intervals[k])

    def _move(self, run: "Run", share: float) -> None:
        """x_{k+1} = P(x_k + share (z - x_k) + (1 - share) (x_k - x_{k-1})) with z = P(x_k + step * direction)."""
        if self.norm == "Linf":
            move = run.slope.sign() * per_image(run.step, run.x)
        else:
            move = run.slope * per_image(run.step / norms(run.slope, "L2").clamp_min(1e-12), run.x)
        move = self.threat.project(move.add_(run.x_adv), run.x).sub_(run.x_adv)  # z - x_k
        if share < 1:
            move.mul_(share).add_(run.x_adv - run.previous, alpha=1 - share)
        run.previous, run.x_adv = run.x_adv, self.threat.project(move.add_(run.x_adv), run.x)

    def _look(self, model: nn.Module, run: "Run", result: Tensor, slope: bool) -> None:
        """Evaluate x_adv, with its gradient if `slope`; the fooled leave, for the others the best point is kept."""
        before = run.loss
        if slope:
            run.loss, run.slope, logits = gradient(model, run.x_adv, lambda z: self.loss(z, run.y, run.target))
        else:
            logits = model(run.x_adv).float()
            run.loss = self.loss(logits, run.y, run.target)
        run.rises += run.loss > before
        run.drop_fooled(logits.argmax(1) != run.y, run.x_adv, result)
        better = run.loss > run.best_loss
        run.best_loss = torch.where(better, run.loss, run.best_loss)
        better = per_image(better, run.x)
        run.best = torch.where(better, run.x_adv, run.best)
        run.best_slope = torch.where(better, run.slope, run.best_slope)

    def _check_progress(self, run: "Run", interval: int) -> None:
        """Halve the step of every image that stalled, and send it back to its best point."""
        stuck = ~run.halved & (run.best_loss <= run.checked)
        run.halved = (run.rises <= self.rho * interval) | stuck
        run.checked = run.best_loss
        run.rises = torch.zeros_like(run.rises)
        run.step = torch.where(run.halved, run.step / 2, run.step)
        run.loss = torch.where(run.halved, run.best_loss, run.loss)
        back = per_image(run.halved, run.x)
        run.x_adv = torch.where(back, run.best, run.x_adv)
        run.slope = torch.where(back, run.best_slope, run.slope)


class Run(ActiveSet):
    """Where each image of a run stands: its point x_adv, the one before and the best one, their losses and slopes."""

    def __init__(self, index: Tensor, x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> None:
        super().__init__(index, x, y, start)
        self.target = target
        self.x_adv = self.previous = start
        self.slope = self.best_slope = torch.zeros_like(start)
        self.loss = self.checked = self.best_loss  # checked: the best loss at the last checkpoint
        self.step = torch.zeros_like(self.loss)
        self.rises = torch.zeros_like(index)  # steps since the last checkpoint that raised the loss
        self.halved = torch.zeros_like(index, dtype=torch.bool)  # at the last checkpoint


def checkpoints(steps: int) -> dict[int, int]:
    """After which steps progress is checked, each with the steps since the one before: 22, 41, 57, 70, ... of 100."""
    interval, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    at, result = interval, {}
    while at <= steps:
        result[at] = interval
        interval = max(interval - shorter, shortest)
        at += interval
    return result


@ATTACKS.register("apgd_ce")
@dataclass
class APGDCE(APGD):
    """Auto-PGD on the cross-entropy."""

    def loss(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, y)


@ATTACKS.register("apgd_dlr")
@dataclass
class APGDDLR(APGD):
    """Auto-PGD on the difference of logits ratio, which does not change with the scale of the logits."""

    def loss(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return dlr(logits, y)


@ATTACKS.register("apgd_t")
@dataclass
class APGDT(APGD):
    """Auto-PGD on the targeted difference of logits ratio, towards the `targets` most likely other classes in turn.

    Likely by the clean logits. With K classes it aims for at most K - 1, and then costs less than `cost` says.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1:
            raise UserError(f"targets={self.targets} is out of range; an attack aims for at least 1 class.")

    def check(self, classes: int) -> None:
        check_targets(self.targets, APGDT.targets, classes)

    @property
    def cost(self) -> int:
        """A forward pass for the clean logits, then a run a target and restart."""
        return 1 + self.targets * super().cost

    def targets_of(self, model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        return targets(model(x).float(), y, self.targets)

    def loss(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return targeted_dlr(logits, y, target)
