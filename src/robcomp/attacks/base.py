"""What an attack is, and the harness around every one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from operator import index
from typing import Any, ClassVar, SupportsIndex

import torch
from torch import Tensor, nn

from robcomp.attacks.inputs import Classifier, Images, Labels, prepared, random_numbers
from robcomp.errors import UserError
from robcomp.projections import box_, l2_ball_, linf_box_
from robcomp.registry import Registry
from robcomp.storage import kind_of
from robcomp.units import Fraction, fraction

ATTACKS: Registry[type["Attack"]] = Registry("attack")
NORMS = ("Linf", "L2")
TOLERANCE = 1e-5  # float32 rounding of x + delta; far below the 1/255 of one grey level


@dataclass(frozen=True)
class ThreatModel:
    """What the adversary may do: move x by at most `eps` in `norm`, inside `bounds`. eps is a fraction of [0, 1]."""

    norm: str
    eps: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"norm={self.norm!r} is not a norm robcomp knows; choose from {', '.join(NORMS)}.")
        if self.norm == "Linf" and self.eps > 1:
            raise UserError(
                f"eps={self.eps:g} is a fraction of the [0, 1] range, so at most 1; did you mean {self.eps:g}/255?"
            )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Move `x_adv`, in place, into the ball around `x` and into bounds (L2: the ball first, then the box)."""
        if self.norm == "Linf":
            return linf_box_(x_adv, x, self.eps, *self.bounds)
        return box_(l2_ball_(x_adv, x, self.eps), *self.bounds)

    def violated(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A zero-dimensional bool on x's device: is any image non-finite, out of bounds or outside the ball?"""
        return self.outside(x_adv) | ~(norms(x_adv - x, self.norm) <= self.eps * (1 + TOLERANCE) + TOLERANCE).all()

    def outside(self, x: Tensor) -> Tensor:
        """A zero-dimensional bool on x's device: is any image non-finite or out of bounds?"""
        low, high = self.bounds
        return ~((x >= low) & (x <= high)).all()


@dataclass
class Attack:
    """An adversary: `x_adv = attack(model, x, y, seed=0)`.

    x: images [N, C, H, W], floats in [0, 1] or uint8; y: class numbers [N]; x_adv: floats on x's device, in [0, 1] and
    in the ball of `eps` around x. eps is a fraction of that range, "8/255" or a number. The model comes back as it was:
    each module in its own mode, gradients and requires_grad of its parameters untouched, running statistics too.
    bn_mode 'eval' attacks the network that will be used; 'train' (batch statistics) is the papers' quirk.
    """

    eps: Fraction
    norm: str = "Linf"
    bn_mode: str = "eval"
    kind: ClassVar[str]  # the registered name
    revision: ClassVar[int] = 1
    bounded: ClassVar[bool] = True  # False for the penalty form, which has no ball
    uses_gradients: ClassVar[bool] = True  # False for attacks that only query the network

    def __post_init__(self) -> None:
        for f in fields(self):
            setattr(self, f.name, typed(f.name, getattr(self, f.name), f.type))
        eps = fraction(self.eps, "eps")
        self.eps = eps
        self.threat = ThreatModel(self.norm, eps)
        if self.bn_mode not in ("eval", "train"):
            raise UserError(f"bn_mode={self.bn_mode!r} is not allowed; choose eval or train.")

    def settings(self) -> dict[str, Any]:
        """The attack as JSON: its registered name, the revision of its algorithm and every setting."""
        return {"name": kind_of(type(self)), "revision": self.revision, **asdict(self)}

    def at_least_one(self, *names: str) -> None:
        """UserError unless each of the named settings is 1 or more."""
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is out of range; an attack takes at least 1.")

    def check(self, classes: int) -> None:
        """UserError where the settings cannot be meant for a network of that many classes."""

    @property
    def cost(self) -> int:
        """Passes for an image that withstands: forward and backward ones together. Orders a suite, and its progress."""
        raise TypeError(f"{type(self).__name__} defines no cost")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """The adversarial images; what each attack defines."""
        raise TypeError(f"{type(self).__name__} defines no perturb()")

    @torch.inference_mode(False)
    def __call__(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        *,
        seed: int | None = None,
    ) -> Tensor:
        """`perturb` for any network, images and labels that `attacks.inputs` takes, and what it returns checked.

        Random numbers come from `generator`, which moves on, or from `seed` (0 where neither is given). UserError for
        what cannot be attacked, ValueError where the attack returned what none may.
        """
        network, images, labels = prepared(model, x, y, self.check)
        random = random_numbers(generator, seed, images.device)
        with adversary_view(network, self.bn_mode):
            x_adv = self.perturb(network, images, labels, random).detach()
        self._check(x_adv, images)
        if self.bounded and len(images) and self.threat.violated(x_adv, images):
            raise ValueError(f"{type(self).__name__} left the {self.norm} ball of eps {self.threat.eps:g}")
        return x_adv.to(_home(x))

    def _check(self, x_adv: Tensor, x: Tensor) -> None:
        if x_adv.shape != x.shape:
            raise ValueError(f"{type(self).__name__} returned shape {tuple(x_adv.shape)} for {tuple(x.shape)}")
        if len(x) and self.threat.outside(x_adv):
            raise ValueError(f"{type(self).__name__} left [0, 1], or returned NaN")


@dataclass
class MinimumNorm(Attack):
    """An attack that looks for the nearest adversarial image. One run so gives robust accuracy at every eps.

    Called like any attack, it returns what it found within eps, and x where that is nothing.
    """

    def nearest(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, enough: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """(x_adv, distance [N] in `norm`): x and infinity where none was found, x and 0 where x is misclassified.

        An image is done once its distance is at most `enough`. What each minimum-norm attack defines.
        """
        raise TypeError(f"{type(self).__name__} defines no nearest()")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        x_adv, distance = self.nearest(model, x, y, generator, enough=self.threat.eps)
        return torch.where(per_image(distance <= self.threat.eps, x), x_adv, x)

    @torch.inference_mode(False)
    def find(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        *,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`nearest` with all that a call takes, checked as in a call; eps plays no part."""
        network, images, labels = prepared(model, x, y, self.check)
        random = random_numbers(generator, seed, images.device)
        with adversary_view(network, self.bn_mode):
            x_adv, distance = self.nearest(network, images, labels, random)
        self._check(x_adv, images)
        size = norms(x_adv - images, self.norm)
        found = distance.isfinite()
        if not torch.allclose(size[found], distance[found], rtol=1e-4, atol=TOLERANCE):
            raise ValueError(f"{type(self).__name__} returned distances that its images do not have")
        return x_adv.detach().to(_home(x)), distance.detach().to(_home(x))


def _home(x: Images) -> torch.device:
    """Where the images came from."""
    return x.device if isinstance(x, Tensor) else torch.device("cpu")


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """[N] as [N, 1, ..., 1], to meet x [N, ...]."""
    return values.view(-1, *[1] * (x.dim() - 1))


def norms(delta: Tensor, norm: str) -> Tensor:
    """Each image's norm of delta [N, ...]: [N]."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "Linf" else flat.norm(dim=1)


def typed(name: str, value: Any, kind: Any) -> Any:
    """`value`, as a field of type int, bool, str or float may hold it (numpy's whole numbers as int); or UserError."""
    numeric = not isinstance(value, bool)
    if kind is int and numeric and isinstance(value, SupportsIndex):
        return index(value)
    allowed = {
        int: (False, "a whole number"),
        bool: (isinstance(value, bool), "true or false"),
        str: (isinstance(value, str), "a string"),
        float: (isinstance(value, int | float) and numeric, "a number"),
    }
    fits, what = allowed.get(kind, (True, ""))
    if not fits:
        raise UserError(f"{name}={value!r} has the wrong type; {what} is allowed.")
    return value


@contextmanager
def adversary_view(model: nn.Module, bn_mode: str = "eval") -> Iterator[None]:
    """Inside, `model` is in eval mode (or in train mode without updating running statistics), its parameters frozen.

    On leaving, each module's own mode, each parameter's requires_grad and each momentum are what they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [(module, module.momentum) for module in norms]
    tracked = [module.num_batches_tracked for module in norms if module.num_batches_tracked is not None]
    counts = [(held, held.clone()) for held in tracked]
    try:
        model.train(bn_mode == "train")
        for parameter in frozen:
            parameter.requires_grad_(False)
        if bn_mode == "train":
            for norm in norms:
                norm.momentum = 0.0  # running = 1 * running + 0 * batch: the attack leaves no trace
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in frozen:
            parameter.requires_grad_(True)
        for norm, momentum in momenta:
            norm.momentum = momentum
        for held, count in counts:
            held.copy_(count)
