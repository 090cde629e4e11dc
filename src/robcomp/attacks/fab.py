"""The fast adaptive boundary attack: the nearest misclassified image by projections on linearised boundaries."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robcomp.attacks.active_set import Nearest, runs_at_once
from robcomp.attacks.base import ATTACKS, MinimumNorm, norms, per_image
from robcomp.attacks.losses import check_targets, gradient, margin, own, targets
from robcomp.errors import UserError
from robcomp.projections.hyperplane import nearest_on_hyperplane

TINY = 1e-12  # keeps ratios of lengths finite
FINAL = 3  # steps of the final search
SHORT = 0.95  # of the way to the boundary as the secant sees it
USUAL_CLASSES = 10  # what `cost` counts with: the attack meets the model later


@ATTACKS.register("fab")
@dataclass
class FAB(MinimumNorm):
    """FAB: the nearest misclassified point, by steps to linearised class boundaries (Croce and Hein, 2020).

    Algorithm 1 of the paper, for Linf and L2.
    Each of `steps` steps linearises the boundary between the class y and that other class whose linearised boundary is
    nearest, projects both x and the current point on it inside [0, 1], goes beyond both projections by the factor `eta`
    and mixes the two, the share of x at most `alpha_max`. A misclassified result is a candidate, and the search goes on
    from its mixture with x, `beta` of it. Restarts after the first begin at a random point at half of the distance
    found so far, or half of eps where that is less.

    A step is a forward and K - 1 backward passes at the current point and a forward pass at the result. Nine results in
    ten are misclassified, and the search goes on elsewhere: a graph kept from that last pass would rarely be used.
    """

    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("steps", "restarts")
        for name in ("alpha_max", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name):g} is out of range; allowed is [0, 1].")
        if not self.eta >= 1:
            raise UserError(f"eta={self.eta:g} is out of range; allowed is [1, inf): 1 ends on the boundary.")

    @property
    def cost(self) -> int:
        return 3 + FINAL + self.restarts * self.steps * (USUAL_CLASSES + 1)

    @torch.no_grad()
    def nearest(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, enough: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        logits = model(x).float()
        best = Nearest(x, logits.argmax(1) != y, self.norm, enough)
        goals = self.goals(logits, y)
        while goals and (left := len(best.active_rows())):
            runs = min(runs_at_once(left, len(x)), len(goals))
            for restart in range(self.restarts):
                if not len(rows := best.active_rows()):
                    break
                start = self._near(best, rows, generator) if restart else x[rows]
                target = torch.cat([goal[rows] for goal in goals[:runs]])
                start = start.repeat(runs, *[1] * (x.dim() - 1))
                self._search(model, best, rows.repeat(runs), y[rows].repeat(runs), target, start, runs)
            goals = goals[runs:]
        self._refine(model, best, y)
        return best.points, best.distance

    def goals(self, logits: Tensor, y: Tensor) -> list[Tensor]:
        """The classes [N] to look for, a run each; the untargeted attack makes one run and looks at none."""
        return [y]

    def _near(self, best: Nearest, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Random points at half of the best distance of each image, or of eps, before they are clipped to [0, 1]."""
        x = best.x[rows]
        if self.norm == "Linf":
            direction = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
        else:
            direction = torch.randn(x.shape, generator=generator, device=x.device)
        radius = best.distance[rows].clamp_max(self.threat.eps) / 2
        return (x + direction * per_image(radius / norms(direction, self.norm), x)).clamp(*self.threat.bounds)

    def _refine(self, model: nn.Module, best: Nearest, y: Tensor) -> None:
        """The final search: from each point found, `FINAL` secant steps of the margin along the segment to x.

        Each stops a little short of the boundary, so that no later rounding puts the point on its other side.
        """
        rows = (best.active(slice(None)) & best.distance.isfinite()).nonzero()[:, 0]
        if not len(rows):
            return
        y, inside, outside = y[rows], best.x[rows], best.points[rows]
        below, above = margin(model(inside).float(), y), margin(model(outside).float(), y)
        for _ in range(FINAL):
            share = SHORT * (above / (above - below).clamp_min(TINY)).clamp(0, 1)
            point = torch.lerp(outside, inside, per_image(share, inside).to(inside))
            logits = model(point).float()
            wrong, gap = logits.argmax(1) != y, margin(logits, y)
            best.update(rows, point, wrong)
            outside, above = torch.where(per_image(wrong, point), point, outside), torch.where(wrong, gap, above)
            inside, below = torch.where(per_image(wrong, point), inside, point), torch.where(wrong, below, gap)

    def _search(
        self, model: nn.Module, best: Nearest, rows: Tensor, y: Tensor, target: Tensor, point: Tensor, runs: int
    ) -> None:
        """`steps` steps from `point` for the images `rows`, in `runs` times; those that are done leave at once."""
        for _ in range(self.steps):
            x = best.x[rows]
            gap, slope = self._boundary(model, point, y, target)
            point = self._step(x, point, gap, slope)
            wrong = model(point).argmax(1) != y
            best.update(rows, point, wrong, runs)
            point = torch.where(per_image(wrong, x), torch.lerp(x, point, self.beta), point)
            if not bool((still := best.active(rows)).all()):
                rows, y, point, target = rows[still], y[still], point[still], target[still]
                if not len(rows):
                    return

    def _boundary(self, model: nn.Module, point: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(z_k - z_y [N], its gradient like point) for the class k whose boundary seems nearest."""
        return nearest_boundary(model, point, y, self.norm)

    def _step(self, x: Tensor, point: Tensor, gap: Tensor, slope: Tensor) -> Tensor:
        """The mixture of the two overshot projections, of `point` and of x."""
        both, w = torch.cat([point, x]).flatten(1), slope.flatten(1)
        offset = gap - (w * point.flatten(1)).sum(1)
        delta = nearest_on_hyperplane(both, w.repeat(2, 1), offset.repeat(2), self.norm, *self.threat.bounds) - both
        ahead, from_x = (both + self.eta * delta).chunk(2)
        length, length_from_x = norms(delta, self.norm).chunk(2)
        share = (length / (length + length_from_x).clamp_min(TINY)).clamp_max(self.alpha_max)
        return torch.lerp(ahead, from_x, share[:, None]).clamp_(*self.threat.bounds).view_as(point)


@ATTACKS.register("fab_t")
@dataclass
class FABT(FAB):
    """FAB towards each of the `targets` most likely other classes in turn: one backward pass a step in place of K - 1.

    The boundary of a step is that between y and the target, yet any misclassified point counts. Source: Croce and
    Hein, 2020, the targeted version for many classes; nine targets as in AutoAttack.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("targets")

    def check(self, classes: int) -> None:
        check_targets(self.targets, FABT.targets, classes)

    @property
    def cost(self) -> int:
        return 3 + FINAL + min(self.targets, USUAL_CLASSES - 1) * self.restarts * self.steps * 3

    def goals(self, logits: Tensor, y: Tensor) -> list[Tensor]:
        return targets(logits, y, self.targets)

    def _boundary(self, model: nn.Module, point: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return gradient(model, point, lambda logits: own(logits, target) - own(logits, y))[:2]


def nearest_boundary(model: nn.Module, x: Tensor, y: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """(z_k - z_y [N], its gradient like x) for the class k with the least |z_k - z_y| / |gradient|_dual.

    One forward pass, and a backward one for each of the K - 1 other classes over its graph; of the gradients only the
    best so far is kept. Where no boundary has a gradient, it is zero. Source: Croce and Hein, 2020, eq. 6.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = model(leaf).float()
        classes = logits.shape[1]
        steps = torch.arange(1, classes, device=y.device)
        gaps = logits.gather(1, (y[:, None] + steps) % classes) - own(logits, y)[:, None]
        sums = gaps.sum(0).unbind()  # an image's gap depends on that image alone
    gaps = gaps.detach()
    gap, slope = gaps.amax(1), torch.zeros_like(x)
    nearest = torch.full_like(gap, torch.inf)
    for k, total in enumerate(sums if sums[0].requires_grad else ()):
        (gradient_k,) = torch.autograd.grad(total, leaf, retain_graph=k < classes - 2, allow_unused=True)
        if gradient_k is None:
            continue
        dual = gradient_k.flatten(1).norm(p=1 if norm == "Linf" else 2, dim=1)
        distance = torch.where(dual > 0, gaps[:, k].abs() / dual, torch.inf)
        closer = distance < nearest
        gap = torch.where(closer, gaps[:, k], gap)
        slope = torch.where(per_image(closer, x), gradient_k, slope)
        nearest = torch.where(closer, distance, nearest)
    return gap, slope
