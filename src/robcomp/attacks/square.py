"""Square Attack: random search by squares, which needs no gradient."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from robcomp.attacks.active_set import ActiveSet
from robcomp.attacks.base import ATTACKS, Attack, norms, per_image
from robcomp.attacks.losses import margin
from robcomp.units import Fraction, fraction

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the queries after which squares have half the area
Window = tuple[Tensor, Tensor, Tensor, Tensor]  # image, channel, row, column: an index that broadcasts to [N, C, s, s]
Change = tuple[Window, Tensor, Tensor]  # where, the values before, the values tried


@ATTACKS.register("square")
@dataclass
class Square(Attack):
    """Random search, without gradients: a square of the image is changed, and kept if the margin falls.

    A square covers the share `p_init` of the image at first, halved after the queries in HALVINGS whatever `queries`
    is. Linf: from vertical stripes of +-eps, a square becomes +-eps with one sign a channel. L2: from a grid of bumps,
    a square takes over the perturbation's energy in a second square and what is left of eps, and moves towards a bump.
    Each of `restarts` runs is its start and `queries` more passes. A fooled image is returned as it is and costs no
    further pass. Every image has squares of its own, drawn for the whole batch, so that none depends on the others.

    Source: Andriushchenko et al., ECCV 2020, algorithms 1 to 3; schedule without rescaling as in AutoAttack (Croce and
    Hein, 2020). L2 follows algorithm 3 in sharing out energy channel by channel, where AutoAttack's code pools it.
    """

    uses_gradients: ClassVar[bool] = False

    queries: int = 5000
    p_init: Fraction = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("queries", "restarts")
        self.p_init = fraction(self.p_init, "p_init", high=1.0, open_low=True)

    @property
    def cost(self) -> int:
        return self.restarts * (self.queries + 1)

    @torch.no_grad()
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        result, highest = x.clone(), x.new_full((len(x),), -torch.inf)
        left = torch.arange(len(x), device=x.device)
        for _ in range(self.restarts if len(x) else 0):
            run = ActiveSet(left, x[left], y[left], self.start(x, generator)[left])
            self._search(model, run, len(x), generator, result)
            left = run.keep_best(result, highest)
            if not len(left):
                break
        return result

    def start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Linf: stripes of +-eps. L2: a grid of bumps, 5 along the shorter side, of norm eps. Clipped to [0, 1]."""
        n, c, h, w = x.shape
        if self.norm == "Linf":
            signs = _signs(torch.rand(n, c, 1, w, generator=generator, device=x.device))
            return self.threat.project(x + self.threat.eps * signs, x)
        side = max(min(h, w) // 5, 1)
        rows, columns = h // side, w // side
        u = torch.rand(2, n, c, rows, columns, 1, 1, generator=generator, device=x.device)
        shape = bump(side, x.device)
        tiles = torch.where(u[0, :, :1] < 0.5, shape, shape.T) * _signs(u[1])  # [n, c, rows, columns, side, side]
        delta = torch.zeros_like(x)
        top, left = (h - rows * side) // 2, (w - columns * side) // 2
        delta[:, :, top : top + rows * side, left : left + columns * side] = tiles.transpose(3, 4).reshape(
            n, c, rows * side, columns * side
        )
        return self.threat.project(x + delta * per_image(self.threat.eps / norms(delta, "L2"), x), x)

    def side(self, query: int, height: int, width: int) -> int:
        """The side of the square of a query, counted from 0: that of the area wanted, within the image; L2: odd."""
        side = max(round(math.sqrt(self.p_init / 2 ** bisect_left(HALVINGS, query) * height * width)), 1)
        if self.norm == "Linf":
            return min(side, height, width)
        return min(max(side, 3) | 1, (min(height, width) - 1) | 1)

    def _search(self, model: nn.Module, run: ActiveSet, count: int, generator: torch.Generator, result: Tensor) -> None:
        """One run over a batch that had `count` images; those it fools are written into `result` and leave `run`."""
        c, h, w = run.x.shape[1:]
        propose, draws = (self._linf, 2 + c) if self.norm == "Linf" else (self._l2, 5 + c)
        _judge(model, run, [], result)
        for query in range(self.queries):
            if not len(run.index):
                return
            u = torch.rand(count, draws, generator=generator, device=run.x.device)
            if len(run.index) < count:
                u = u[run.index]
            _judge(model, run, propose(run, u, self.side(query, h, w)), result)

    def _linf(self, run: ActiveSet, u: Tensor, side: int) -> list[Change]:
        """Algorithm 2: a square at x + eps or x - eps, one sign a channel. Written into run.best."""
        where = _window(run.x, u[:, :2], side)
        tried = (run.x[where] + self.threat.eps * _signs(u[:, 2:, None, None])).clamp_(*self.threat.bounds)
        change = where, run.best[where], tried
        run.best[where] = tried
        return [change]

    def _l2(self, run: ActiveSet, u: Tensor, side: int) -> list[Change]:
        """Algorithm 3: a second square's energy, and what eps leaves, into the first one. Written into run.best."""
        first, second = _window(run.x, u[:, :2], side), _window(run.x, u[:, 2:4], side)
        unused = self.threat.eps**2 - (run.best - run.x).square().sum((1, 2, 3), keepdim=True)
        before_first, before_second = run.best[first], run.best[second]
        x_first, x_second = run.x[first], run.x[second]
        run.best[second] = x_second
        outside = run.best[first] - x_first  # what the first square has outside the second
        energy = _energy(before_second - x_second) + _energy(outside) + unused / run.x.shape[1]
        shape = bump(side, run.x.device)
        shape = torch.where(per_image(u[:, 4] < 0.5, run.x), shape, shape.T) * _signs(u[:, 5:, None, None])
        delta = shape + _unit(before_first - x_first)
        tried = (x_first + _unit(delta) * energy.clamp_min(0).sqrt()).clamp_(*self.threat.bounds)
        run.best[first] = tried
        return [(second, before_second, run.best[second]), (first, before_first, tried)]


def _judge(model: nn.Module, run: ActiveSet, changes: list[Change], result: Tensor) -> None:
    """Evaluate run.best, which holds `changes`; undo those that were no gain, and let the fooled leave."""
    logits = model(run.best).float()
    loss, fooled = margin(logits, run.y), logits.argmax(1) != run.y
    better = (loss > run.best_loss) | fooled
    for where, before, tried in changes:
        run.best[where] = torch.where(per_image(better, tried), tried, before)
    run.best_loss = torch.where(better, loss, run.best_loss)
    run.drop_fooled(fooled, run.best, result)


def _window(x: Tensor, corner: Tensor, side: int) -> Window:
    """The index of one square of x an image, anywhere inside it: corner [N, 2] is uniform in [0, 1)."""
    n, c, h, w = x.shape
    along = torch.arange(side, device=x.device)
    top, left = (corner[:, :1] * (h - side + 1)).long(), (corner[:, 1:] * (w - side + 1)).long()
    images = torch.arange(n, device=x.device)[:, None, None, None]
    channels = torch.arange(c, device=x.device)[:, None, None]
    return images, channels, (top + along)[:, None, :, None], (left + along)[:, None, None, :]


@cache
def bump(side: int, device: torch.device) -> Tensor:
    """[side, side] of norm 1: a hill in the upper half, a hollow in the lower one (eta of the paper's section 3.4)."""
    upper = side // 2
    both = torch.cat([_hill(upper, side, device), -_hill(side - upper, side, device)])
    return both / both.norm()


def _hill(height: int, width: int, device: torch.device) -> Tensor:
    """[height, width] of norm 1: d rows or columns from the centre, the sum of 1 / (k + 1)^2 over k = d, d + 1, ..."""
    rows = (torch.arange(height, device=device) - height // 2).abs()
    columns = (torch.arange(width, device=device) - width // 2).abs()
    terms = (torch.arange(max(height, width) // 2 + 1, device=device) + 1.0) ** -2
    hill = terms.flip(0).cumsum(0).flip(0)[torch.maximum(rows[:, None], columns)]
    return hill / hill.norm().clamp_min(1e-12)


def _signs(u: Tensor) -> Tensor:
    """-1 or 1, either for half of u in [0, 1)."""
    return torch.where(u < 0.5, -1.0, 1.0)


def _energy(delta: Tensor) -> Tensor:
    """The square of each channel's L2 norm: [N, C, s, s] to [N, C, 1, 1]."""
    return delta.square().sum((2, 3), keepdim=True)


def _unit(delta: Tensor) -> Tensor:
    """Each channel of delta [N, C, s, s] divided by its norm; zero stays zero."""
    return delta / _energy(delta).sqrt().clamp_min(1e-12)
