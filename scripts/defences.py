"""A zoo of defences that raise accuracy under attack without making a network robust, and the attack that shows it.

Each entry of `DEFENCES` builds a `Defended` network from a `Workshop`: the network as it would be evaluated, and an
exposed version of it, deterministic and differentiable, whose adversarial images transfer. `strongest` is the accuracy
that the strongest attack leaves. Sources are named where a defence was published or broken:

- Athalye, Carlini and Wagner, ICML 2018: gradients that are shattered, random, or vanish; BPDA, which gives a step the
  gradient of something smooth in the backward pass.
- Tramer, Carlini, Brendel and Madry, NeurIPS 2020: k-winners-take-all and others under adaptive attacks.
- Croce et al., ICML 2022: defences that act at test time.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robcomp.attacks.apgd import APGDT
from robcomp.attacks.base import per_image
from robcomp.attacks.pgd import PGD
from robcomp.attacks.square import Square
from robcomp.data import Split, to_float
from robcomp.evaluation.accuracy import measure
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.suite import SuiteConfig

Trained = TypeVar("Trained", bound=nn.Module)
Function = Callable[[Tensor], Tensor]
GAP = 5.0  # points by which an accuracy may be too high without a flag
PASSES = 10  # over each image that was found, as some defences are random


class Wrapped(nn.Module):
    """after(network(before(x)))."""

    def __init__(self, net: nn.Module, before: Function | None = None, after: Function | None = None) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before or same, after or same

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


class Layers(nn.Module):
    """The layers one after another, `activation` between each two."""

    def __init__(self, layers: Sequence[nn.Module], activation: Function = F.relu) -> None:
        super().__init__()
        self.layers, self.activation = nn.ModuleList(layers), activation

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.layers
        x = first(x)
        for layer in others:
            x = layer(self.activation(x))
        return x

    def with_activation(self, activation: Function) -> "Layers":
        """The same layers with another activation between them."""
        other = copy.copy(self)
        other.activation = activation
        return other


class Members(nn.Module):
    """`combine` of the logits [M, N, K] of several networks."""

    def __init__(self, members: Sequence[nn.Module], combine: Function) -> None:
        super().__init__()
        self.members, self.combine = nn.ModuleList(members), combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(torch.stack([member(x) for member in self.members]))


class OneAtRandom(nn.Module):
    """The logits of one of several networks, drawn for each pass."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return self.members[int(torch.randint(len(self.members), ()))](x)


class Beside(nn.Module):
    """`combine(x, network(x))`."""

    def __init__(self, net: nn.Module, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.combine = net, combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(x, self.net(x))


class RandomFormat(nn.Module):
    """The network, computing in bfloat16 in half of the passes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bool(torch.rand(()) < 0.5)):
            return self.net(x).float()


class FixedDraws(nn.Module):
    """The mean logits of a random network over the same `draws` passes each time."""

    def __init__(self, net: nn.Module, draws: int = 5) -> None:
        super().__init__()
        self.net, self.draws = net, draws

    def forward(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return torch.stack([self.net(x) for _ in range(self.draws)]).mean(0)


@dataclass(frozen=True)
class Defended:
    """A defended network, and the network on which adversarial images for it are made."""

    model: nn.Module
    exposed: nn.Module


@dataclass
class Workshop:
    """What defences are made of.

    network: the one to defend. train, test: images for training and those that are evaluated. layers: a fresh network's
    layers, by the number of its input channels. eps: of PGD-4 in Linf, on whose images is trained; 0: clean ones.
    steps, lr, batch: of Adam. cache: a folder where trained weights are kept, None for nowhere.
    """

    network: nn.Module
    train: Split
    test: Split
    layers: Callable[[int], Sequence[nn.Module]]
    eps: float = 0.0
    steps: int = 600
    lr: float = 3e-3
    batch: int = 128
    cache: Path | None = None
    made: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    def stored(self, count: int = 300) -> Tensor:
        """The first training images, float32 [count, C, H, W] in [0, 1]."""
        return to_float(self.train.images[:count])

    def fresh(self, seed: int = 0, activation: Function = F.relu, channels: int | None = None) -> Layers:
        """A network of random weights."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Layers(self.layers(channels or self.channels), activation)

    def member(self, seed: int) -> Layers:
        """A network of its own, trained on clean images."""
        return self.trained(f"member_{seed}", self.fresh(seed))

    def members(self, count: int) -> list[Layers]:
        """That many networks, each trained from other weights."""
        return [self.member(seed) for seed in range(count)]

    def trained(self, name: str, model: Trained, eps: float | None = None, teacher: nn.Module | None = None) -> Trained:
        """`model` trained in place, and kept under `name`; with an eps of its own, or on a teacher's probabilities."""
        if name in self.made:
            return self.made[name]
        path = self.cache and self.cache / f"{name}.pt"
        if path and path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            self._train(model, self.eps if eps is None else eps, teacher)
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(model.state_dict(), path)
        self.made[name] = model.eval().requires_grad_(False)
        return model

    def _train(self, model: nn.Module, eps: float, teacher: nn.Module | None) -> None:
        random = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr)
        model.train()
        for _ in range(self.steps):
            chosen = torch.randperm(len(self.train), generator=random)[: self.batch]
            x, y = to_float(self.train.images[chosen]), self.train.labels[chosen]
            attacked = PGD(eps, steps=4)(model, x, y, random) if eps else x
            aim = teacher(x).softmax(1) if teacher else y
            optimizer.zero_grad()
            F.cross_entropy(model(attacked), aim).backward()
            optimizer.step()


# Parts of defences: functions of images, of activations and of logits


def same(x: Tensor) -> Tensor:
    return x


def bpda(exact: Function, smooth: Function = same) -> Function:
    """`exact` in the forward pass, the gradient of `smooth` in the backward pass (Athalye et al., 2018)."""

    def both(x: Tensor) -> Tensor:
        stand_in = smooth(x)
        return stand_in + (exact(x) - stand_in).detach()

    return both


def rounded(levels: float) -> Function:
    """Rounds to multiples of 1 / levels."""
    return lambda x: (x * levels).round() / levels


def stairs(x: Tensor) -> Tensor:
    """8 levels joined by sigmoids so steep that few pixels have a slope."""
    low = (8 * x).detach().floor()
    return (low + torch.sigmoid(4000 * (8 * x - low - 0.5))) / 8


def wave(x: Tensor) -> Tensor:
    """x and a fine wave, which changes it by 1/255 at most and its slope to between -5 and 7."""
    return x + (6 * 255 * x).sin() / 255


def noise(size: float) -> Function:
    """Adds normal noise of that standard deviation."""
    return lambda x: (x + size * torch.randn_like(x)).clamp(0, 1)


def dropped(x: Tensor) -> Tensor:
    """Half of the pixels, drawn anew each time, at twice their value."""
    return 2 * x * (torch.rand_like(x[:, :1]) < 0.5)


def shifted(x: Tensor) -> Tensor:
    """The images made smaller by up to a tenth and put at a random place on black."""
    sides = x.shape[2:]
    height, width = (side - int(torch.randint(side // 10 + 1, ())) for side in sides)
    small = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    top, left = (int(torch.randint(room + 1, ())) for room in (sides[0] - height, sides[1] - width))
    return F.pad(small, (left, sides[1] - width - left, top, sides[0] - height - top))


def random_levels(x: Tensor) -> Tensor:
    """Rounds to 1 to 4 bits, drawn anew each time."""
    return rounded(2.0 ** int(torch.randint(1, 5, ())) - 1)(x)


def median(x: Tensor) -> Tensor:
    """The median of 3x3 pixels."""
    n, c, h, w = x.shape
    patches = F.unfold(F.pad(x, (1, 1, 1, 1), mode="reflect").reshape(n * c, 1, h + 2, w + 2), 3)
    return patches.median(1).values.view(n, c, h, w)


def jpeg(x: Tensor, step: float = 0.1, size: int = 4) -> Tensor:
    """The discrete cosine transform of blocks, rounded to multiples of `step`, and back."""
    n, c, h, w = x.shape
    places = torch.arange(size, device=x.device)
    basis = (2 / size) ** 0.5 * torch.cos(torch.pi * (2 * places + 1) * places[:, None] / (2 * size))
    basis[0] /= 2**0.5
    blocks = x.reshape(n, c, h // size, size, w // size, size).transpose(3, 4)
    coefficients = rounded(1 / step)(basis @ blocks @ basis.T)
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(x.shape).clamp(0, 1)


def thermometer(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N, 10 C, H, W]: 1 where a pixel is above a tenth, two tenths, ..."""
    return (ramps(x) > 0).float()


def ramps(x: Tensor) -> Tensor:
    """What a pixel has above each tenth: [N, 10 C, H, W]."""
    levels = torch.arange(10, device=x.device).view(10, 1, 1) / 10
    return (x[:, :, None] - levels).clamp_min(0).flatten(1, 2)


def distances(x: Tensor, stored: Tensor) -> Tensor:
    """Squared distances between images [N, ...] and [M, ...]: [N, M]."""
    a, b = x.flatten(1), stored.flatten(1)
    return a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)


def nearest(stored: Tensor) -> Function:
    """The stored image nearest to each."""
    return lambda x: stored[distances(x, stored).argmin(1)]


def blend(stored: Tensor) -> Function:
    """The stored images, averaged with weights that fall with their distance: a smooth `nearest`."""
    return lambda x: ((-4 * distances(x, stored)).softmax(1) @ stored.flatten(1)).view_as(x)


def off_grid(x: Tensor) -> Tensor:
    """Which images have a pixel that is no multiple of 1/255, as no stored image has: bool [N, 1, 1, 1]."""
    levels = 255 * x
    return per_image((levels - levels.round()).abs().flatten(1).amax(1) > 0.01, x)


def if_off_grid(change: Function) -> Function:
    """`change` of the images off the grid of 1/255; the others as they are."""
    return lambda x: torch.where(off_grid(x), change(x), x)


def along(x: Tensor, classes: int) -> Tensor:
    """10,000 times each image's product with a fixed pattern of signs, one for each class: [N, classes]."""
    signs = torch.randint(0, 2, (x[0].numel(), classes), generator=torch.Generator().manual_seed(7)) * 2 - 1
    return 1e4 * x.flatten(1) @ signs.to(x)


def with_sawtooth(x: Tensor, z: Tensor) -> Tensor:
    """Adds less than 0.1 to the logits, and 1000 to their slope at every pixel."""
    t = along(x, z.shape[1])
    return z + 0.1 * (t - t.detach().floor())


def with_waves(x: Tensor, z: Tensor) -> Tensor:
    """Adds at most 0.1 to the logits, and up to 1000 to their slope at every pixel."""
    return z + 0.1 * along(x, z.shape[1]).sin()


def with_random_sawtooth(x: Tensor, z: Tensor) -> Tensor:
    """As `with_sawtooth`, each class's rising or falling at random."""
    return z + torch.randn_like(z).sign() * (with_sawtooth(x, z) - z)


def with_sawtooth_off_grid(x: Tensor, z: Tensor) -> Tensor:
    """`with_random_sawtooth` for images off the grid of 1/255."""
    return torch.where(off_grid(x).flatten(1), with_random_sawtooth(x, z), z)


def with_root(x: Tensor, z: Tensor) -> Tensor:
    """Adds the root of zero, whose slope is infinite."""
    return z + (0 * x).flatten(1).sqrt().sum(1, keepdim=True)


def winners(share: float, width: float = 0.0) -> Function:
    """Keeps the largest `share` of each image's activations; with a `width`, by a sigmoid in place of a step."""

    def keep(z: Tensor) -> Tensor:
        count = max(round(share * z[0].numel()), 1)
        above = z - per_image(z.flatten(1).topk(count).values[:, -1], z)
        return z * (torch.sigmoid(above / width + 1) if width else above >= 0)

    return keep


def pruned_at_random(z: Tensor) -> Tensor:
    """Keeps each activation with a probability that grows with its size, enlarged by as much."""
    z = F.relu(z)
    share = z / per_image(z.flatten(1).sum(1).clamp_min(1e-12), z)
    kept = 1 - (1 - share) ** (0.5 * z[0].numel())
    return z * (torch.rand_like(z) < kept) / kept.clamp_min(1e-6)


def steps_of(levels: int) -> Function:
    """An activation of values 0, 1 / levels, ..., 1, of slope zero."""
    return lambda z: rounded(levels)(z.clamp(0, 1))


def hard(z: Tensor) -> Tensor:
    """1 for the predicted class and 0 for the others, [..., K]."""
    return F.one_hot(z.argmax(-1), z.shape[-1]).float()


def mean(z: Tensor) -> Tensor:
    """The mean of the members' logits [M, N, K]."""
    return z.mean(0)


def votes(z: Tensor) -> Tensor:
    """How many members [M, N, K] decide for each class."""
    return hard(z).sum(0)


def clipped(z: Tensor) -> Tensor:
    """The logarithm of probabilities clipped to [0.05, 0.95], at temperature 1/5."""
    return (5 * z).softmax(1).clamp(0.05, 0.95).log()


def random_bits(z: Tensor) -> Tensor:
    """Rounds to multiples of 1/2, 1, 2 or 4, drawn anew each time."""
    return rounded(2.0 ** int(torch.randint(-2, 2, ())))(z)


# The zoo

DEFENCES: dict[str, Callable[[Workshop], Defended]] = {}


def defence(build: Callable[[Workshop], Defended]) -> Callable[[Workshop], Defended]:
    """Enters the function that builds a defence under its name."""
    DEFENCES[build.__name__.replace("_", " ")] = build
    return build


def squeezed(net: nn.Module, change: Function, smooth: Function = same) -> Defended:
    """`change` before the network; exposed, the gradient is that of `smooth`."""
    return Defended(Wrapped(net, change), Wrapped(net, bpda(change, smooth)))


@defence
def rounded_input(w: Workshop) -> Defended:
    """Pixels of 8 levels (Xu et al., NDSS 2018)."""
    return squeezed(w.network, rounded(7))


@defence
def saturating_input(w: Workshop) -> Defended:
    """Pixels on a staircase that is smooth and nearly everywhere flat."""
    return squeezed(w.network, stairs)


@defence
def wavy_input(w: Workshop) -> Defended:
    """Pixels on a fine wave, whose slope is of the wrong sign nearly half of the time."""
    return Defended(Wrapped(w.network, wave), w.network)


@defence
def jpeg_input(w: Workshop) -> Defended:
    """Images compressed as in JPEG (Guo et al., 2018; broken by Athalye et al.)."""
    return squeezed(w.network, jpeg)


@defence
def median_input(w: Workshop) -> Defended:
    """The median of 3x3 pixels, in 16 levels, with a network trained on such images (Xu et al., NDSS 2018)."""

    def change(x: Tensor) -> Tensor:
        return rounded(15)(median(x))

    net = w.trained("median", Wrapped(w.fresh(), median))
    return squeezed(net.net, change, median)


@defence
def thermometer_encoding(w: Workshop) -> Defended:
    """Each pixel as ten steps, with a network trained on these (Buckman et al., 2018; broken by Athalye et al.)."""
    net = w.trained("thermometer", Wrapped(w.fresh(channels=10 * w.channels), bpda(thermometer, ramps)))
    return Defended(Wrapped(net.net, thermometer), net)


@defence
def nearest_training_image(w: Workshop) -> Defended:
    """The nearest of 300 training images in the image's place (in the manner of Samangouei et al., ICLR 2018)."""
    stored = w.stored()
    return squeezed(w.network, nearest(stored), blend(stored))


@defence
def random_noise(w: Workshop) -> Defended:
    """Noise on the input, with a network trained on such images (Liu et al., ECCV 2018)."""
    return random_input(w, noise(0.2))


@defence
def random_pixel_dropout(w: Workshop) -> Defended:
    """Half of the pixels, drawn for each pass, with a network trained on such images."""
    return random_input(w, dropped)


@defence
def random_resizing(w: Workshop) -> Defended:
    """A random size and place, with a network trained on such images (Xie et al., 2018; broken by Athalye et al.)."""
    return random_input(w, shifted)


def random_input(w: Workshop, change: Function) -> Defended:
    """A network trained behind a random `change`, exposed as its mean over fixed draws."""
    net = w.trained(f"random_{getattr(change, '__name__', 'noise')}", Wrapped(w.fresh(), change))
    return Defended(net, FixedDraws(net))


@defence
def random_input_precision(w: Workshop) -> Defended:
    """Pixels of 1 to 4 bits, as many as are drawn for each pass."""
    return Defended(Wrapped(w.network, random_levels), w.network)


@defence
def noise_off_the_grid(w: Workshop) -> Defended:
    """The same network and noise as `random_noise`, but images of whole grey levels are left alone."""
    net = random_input(w, noise(0.2)).model.net
    return Defended(Wrapped(net, if_off_grid(noise(0.2))), net)


@defence
def rounding_off_the_grid(w: Workshop) -> Defended:
    """Pixels of 8 levels where they are no whole grey levels, so that the gradient is sound at every stored image."""
    return squeezed(w.network, if_off_grid(rounded(7)))


@defence
def recall_off_the_grid(w: Workshop) -> Defended:
    """Images that are no whole grey levels are replaced by the nearest image ever seen."""
    return Defended(Wrapped(w.network, if_off_grid(nearest(to_float(w.test.images)))), w.network)


@defence
def random_slope_off_the_grid(w: Workshop) -> Defended:
    """A steep sawtooth of random signs on the logits, but not for images of whole grey levels."""
    return Defended(Beside(w.network, with_sawtooth_off_grid), w.network)


@defence
def random_slope(w: Workshop) -> Defended:
    """A steep sawtooth of random signs on the logits."""
    return Defended(Beside(w.network, with_random_sawtooth), w.network)


@defence
def steep_slope(w: Workshop) -> Defended:
    """A steep and low sawtooth on the logits, which leads every gradient the same way."""
    return Defended(Beside(w.network, with_sawtooth), w.network)


@defence
def steep_waves(w: Workshop) -> Defended:
    """Steep and low waves on the logits, whose valleys hold every gradient step."""
    return Defended(Beside(w.network, with_waves), w.network)


@defence
def infinite_slope(w: Workshop) -> Defended:
    """The root of zero added to the logits: gradients are not finite."""
    return Defended(Beside(w.network, with_root), w.network)


@defence
def another_gradient(w: Workshop) -> Defended:
    """The network's answers with the gradient of random weights."""
    decoy = w.fresh(seed=1).requires_grad_(False)

    def combine(z: Tensor) -> Tensor:
        return z[1] + (z[0] - z[1]).detach()

    return Defended(Members([w.network, decoy], combine), w.network)


@defence
def logits_x_1000(w: Workshop) -> Defended:
    """Logits so large that the cross-entropy of a right answer is 0 (Carlini and Wagner, 2017)."""
    return Defended(Wrapped(w.network, after=lambda z: 1000 * z), w.network)


@defence
def softmax_output(w: Workshop) -> Defended:
    """Probabilities in place of logits."""
    return Defended(Wrapped(w.network, after=lambda z: z.softmax(1)), w.network)


@defence
def softmax_x_10(w: Workshop) -> Defended:
    """Probabilities times 10 in place of logits."""
    return Defended(Wrapped(w.network, after=lambda z: 10 * z.softmax(1)), w.network)


@defence
def clipped_probabilities(w: Workshop) -> Defended:
    """Logarithms of clipped probabilities: all that is certain is equally certain."""
    return Defended(Wrapped(w.network, after=clipped), w.network)


@defence
def rounded_logits(w: Workshop) -> Defended:
    """Whole numbers as logits."""
    return Defended(Wrapped(w.network, after=torch.round), w.network)


@defence
def random_logit_precision(w: Workshop) -> Defended:
    """Logits rounded to multiples of 1/2, 1, 2 or 4, as is drawn for each pass."""
    return Defended(Wrapped(w.network, after=random_bits), w.network)


@defence
def random_number_format(w: Workshop) -> Defended:
    """The network computes in bfloat16 or float32, as is drawn for each pass."""
    return Defended(RandomFormat(w.network), w.network)


@defence
def hard_output(w: Workshop) -> Defended:
    """1 for the predicted class and 0 for the others (Brendel et al., ICLR 2018, on attacks that see no more)."""
    return Defended(Wrapped(w.network, after=hard), w.network)


@defence
def majority_of_5(w: Workshop) -> Defended:
    """How many of five networks decide for each class."""
    members = w.members(5)
    return Defended(Members(members, votes), Members(members, mean))


@defence
def majority_under_noise(w: Workshop) -> Defended:
    """How many of five passes with noise decide for each class (after Cohen et al., ICML 2019, who take 100,000)."""
    net = random_input(w, noise(0.2)).model
    return Defended(Members([net] * 5, votes), FixedDraws(net))


@defence
def nearest_neighbours(w: Workshop) -> Defended:
    """How many of the five nearest of 300 training images are of each class (Sitawarin and Wagner, 2019)."""
    stored, classes = w.stored(), F.one_hot(w.train.labels[:300]).float()

    def count(x: Tensor) -> Tensor:
        return classes[distances(x, stored).topk(5, largest=False).indices].sum(1)

    def soft(x: Tensor) -> Tensor:
        return ((-4 * distances(x, stored)).softmax(1) @ classes + 1e-12).log()

    return Defended(Wrapped(nn.Identity(), count), Wrapped(nn.Identity(), soft))


@defence
def random_choice_of_2(w: Workshop) -> Defended:
    """One of two networks, drawn for each pass."""
    return Defended(OneAtRandom(w.members(2)), Members(w.members(2), mean))


@defence
def random_choice_of_5(w: Workshop) -> Defended:
    """One of five networks, drawn for each pass."""
    return Defended(OneAtRandom(w.members(5)), Members(w.members(5), mean))


@defence
def random_choice_of_5_rounded(w: Workshop) -> Defended:
    """One of five networks behind 4 to 8 levels, drawn for each pass."""
    members = [Wrapped(net, rounded(3 + k)) for k, net in enumerate(w.members(5))]
    return Defended(OneAtRandom(members), Members(w.members(5), mean))


@defence
def defensive_distillation(w: Workshop) -> Defended:
    """A network trained at temperature 100 on the answers of another such network (Papernot et al., 2016; broken by
    Carlini and Wagner, 2017)."""
    student = w.trained("student", w.fresh(seed=9), teacher=w.member(0))
    return Defended(Wrapped(student, after=lambda z: 100 * z), student)


@defence
def winners_take_all(w: Workshop) -> Defended:
    """Of each layer's activations the largest tenth (Xiao et al., ICLR 2020; broken by Tramer et al.)."""
    net = w.trained("winners", w.fresh(activation=winners(0.1)))
    return Defended(net, net.with_activation(winners(0.1, width=0.1)))


@defence
def sign_activations(w: Workshop) -> Defended:
    """Activations of -1 and 1, trained with the gradient of tanh (Galloway et al., ICLR 2018)."""
    net = w.trained("sign", w.fresh(activation=bpda(torch.sign, torch.tanh)))
    return Defended(net.with_activation(torch.sign), net)


@defence
def activations_of_3_levels(w: Workshop) -> Defended:
    """Activations of 0, 1/2 and 1, trained with the gradient of what they round (Lin et al., ICLR 2019)."""
    net = w.trained("levels", w.fresh(activation=bpda(steps_of(2), lambda z: z.clamp(0, 1))))
    return Defended(net.with_activation(steps_of(2)), net)


@defence
def late_step(w: Workshop) -> Defended:
    """The last hidden layer's activations are rounded to whole numbers."""
    net = w.member(0)
    return Defended(Layers([*net.layers[:-1], Wrapped(net.layers[-1], torch.round)]), net)


@defence
def stochastic_activation_pruning(w: Workshop) -> Defended:
    """Activations are dropped at random, small ones more often (Dhillon et al., 2018; broken by Athalye et al.)."""
    net = w.member(0)
    return Defended(net.with_activation(pruned_at_random), net)


# The judge


def strongest(
    e: Evaluator,
    exposed: nn.Module,
    suite: SuiteConfig,
    looked: np.ndarray,
    worst_case: np.ndarray,
    steps: int,
    queries: int,
) -> np.ndarray:
    """Which of the images `looked` at (bool [N]) withstand every attack that is known here.

    These are PGD (on the margin and on the cross-entropy) and APGD-T on the exposed network, of `steps` steps; the
    suite's attacks, which left `worst_case`; and Square on the defence itself. Each image found is tried as it is and
    in whole grey levels. Of a random defence it counts where the majority of PASSES passes misclassifies it, so that
    the suite attacks again.
    """
    counted = suite.counted()
    ball = max(counted.values(), key=lambda attack: attack.threat.eps)
    random = is_random(e)
    on_exposed = [
        PGD(ball.eps, ball.norm, steps=steps, loss="margin"),
        PGD(ball.eps, ball.norm, steps=steps),
        APGDT(ball.eps, ball.norm, steps=steps),
    ]
    on_itself = [*(counted.values() if random else ()), Square(ball.eps, ball.norm, queries=queries)]
    left = looked.copy() if random else looked & worst_case
    transferred, direct = [(exposed, attack) for attack in on_exposed], [(e.model, attack) for attack in on_itself]
    for network, attack in transferred + direct:
        if left.any():
            index = np.flatnonzero(left)
            x, y = e.images(index)
            found = attack(network, x, y, seed=e.seed)
            passes = PASSES if random else 1
            left[index] = (kept(e, found, y, passes) & kept(e, on_grid(found, x), y, passes)).cpu().numpy()
    return left


def is_random(e: Evaluator) -> bool:
    """Does one of PASSES passes differ, on images that lie between grey levels as those of attacks do?"""
    x = (e.images(np.arange(min(len(e), 20)))[0] * 254.5 + 0.25) / 255
    first = e.logits(x)
    return any(not torch.equal(e.logits(x), first) for _ in range(PASSES))


def kept(e: Evaluator, x: Tensor, y: Tensor, passes: int) -> Tensor:
    """Which images at least half of the passes classify correctly: bool [N]."""
    return torch.stack([e.correct(x, y) for _ in range(passes)]).float().mean(0) >= 0.5


def on_grid(x_adv: Tensor, x: Tensor) -> Tensor:
    """x_adv rounded towards x to multiples of 1/255, of which x consists."""
    return ((255 * x).round() + (255 * (x_adv - x)).trunc()) / 255


@dataclass(frozen=True)
class Judged:
    """What the suite, the strongest attack and the verdict say of a network.

    clean: of all images. worst_case, strongest: accuracy on the `images` looked at, which are correct without an
    attack. seconds: of the suite, and of the verdict. flags: names of the checks that failed, with their evidence.
    """

    clean: float
    images: int
    worst_case: float
    strongest: float
    seconds: tuple[float, float]
    flags: dict[str, str]

    @property
    def gap(self) -> float:
        """By how many points the suite's accuracy is too high."""
        return 100 * (self.worst_case - self.strongest)

    def wrong(self, honest: bool) -> bool:
        """Is the verdict wrong: no flag although the gap exceeds GAP, or one on an honest network without such a gap?

        A defence that was attacked well may be flagged or not.
        """
        return not self.flags if self.gap > GAP else honest and bool(self.flags)


def judge(defended: Defended, test: Split, suite: SuiteConfig, steps: int = 100, queries: int = 5000) -> Judged:
    """Suite, verdict and strongest attack (of that many steps and queries) on the first `suite.verdict` images that are
    classified correctly."""
    torch.manual_seed(0)
    with Evaluator(defended.model, test, 0, suite.batch_size) as e:
        began = time.monotonic()
        measured = measure(e, suite)
        spent = time.monotonic() - began
        attacking = sum(attack.seconds for attack in measured.accuracy.attacks.values())
        looked = np.zeros(len(e), bool)
        looked[np.flatnonzero(e.clean)[: suite.verdict]] = True
        withstood = strongest(e, defended.exposed, suite, looked, measured.outcomes["worst_case"], steps, queries)
    count = max(int(looked.sum()), 1)
    return Judged(
        clean=float(e.clean.mean()),
        images=int(looked.sum()),
        worst_case=int((measured.outcomes["worst_case"] & looked).sum()) / count,
        strongest=int(withstood.sum()) / count,
        seconds=(attacking, spent - attacking),
        flags={check.name: check.evidence for check in measured.verdict.flags} if measured.verdict else {},
    )
