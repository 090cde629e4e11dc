"""What a user brings to an attack: a network in any state, images and labels; each works or gets one sentence."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.seeding import generator as keyed

Images = Tensor | np.ndarray
Labels = Tensor | np.ndarray | Sequence[int]
Classifier = nn.Module | Callable[[Tensor], Any]


class Network(nn.Module):
    """A user's network, or a plain function, as attacks know one: float32 logits [N, K] of images float32 [N, C, H, W].

    It computes in the dtype of its own weights. What it returns may lie under the name `logits` of a dict or object.
    UserError where it fails on the very first images, and for any answer other than a logit for each of at least
    `classes` classes; `check` is told how many there are.
    """

    def __init__(self, model: Classifier, classes: int, check: Callable[[int], None] = lambda classes: None) -> None:
        super().__init__()
        if not callable(model) or isinstance(model, type):
            what = f"the class {model.__name__}" if isinstance(model, type) else f"of type {type(model).__name__}"
            hint = "; a state dict has to be loaded into its network first" if isinstance(model, Mapping) else ""
            raise UserError(f"the network is {what}; give an nn.Module, or a function from images to logits{hint}.")
        self.model, self.classes, self.check = model, max(classes, 2), check
        self.answered = False

    def forward(self, x: Tensor) -> Tensor:
        weights = (t.dtype for t in chain(self.parameters(), self.buffers()) if t.is_floating_point())
        given = x.to(next(weights, x.dtype))
        try:
            answer = self.model(given)
        except UserError:
            raise
        except Exception as error:
            if self.answered:
                raise
            said = (str(error).strip() or "no message").splitlines()[0]
            raise UserError(
                f"the network cannot take images {list(x.shape)} in {given.dtype}: {type(error).__name__}: {said}"
            ) from error
        logits = self._logits(answer, len(x)).float()
        if not self.answered:
            self.check(logits.shape[1])
        self.answered = True
        return logits

    def _logits(self, answer: Any, count: int) -> Tensor:
        named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
        logits = answer if named is None else named
        if not isinstance(logits, Tensor):
            parts = f" of {list(answer)}" if isinstance(answer, Mapping) else ""
            raise UserError(
                f"the network returns a {type(answer).__name__}{parts}; give a function that returns the logits [N, K] "
                "alone, as in lambda x: model(x)[0]."
            )
        if not logits.is_floating_point():
            raise UserError(f"the network returns {logits.dtype}; its logits [N, K] are needed, not its decisions.")
        if logits.shape in ((count,), (count, 1)):
            raise UserError(
                f"the network returns one number an image (shape {list(logits.shape)}); a logit for each class is "
                "needed: with a logit z for class 1 of two, give lambda x: torch.stack([0 * z, z], 1) of z = model(x)."
            )
        if logits.dim() != 2 or len(logits) != count:
            raise UserError(
                f"the network returns shape {list(logits.shape)} for {count} images; logits [{count}, K] are needed."
            )
        if logits.shape[1] < self.classes:
            raise UserError(
                f"the labels go up to {self.classes - 1} and the network has {logits.shape[1]} classes, "
                f"0 to {logits.shape[1] - 1}; give labels of its own classes."
            )
        return logits


def prepared(model: Classifier, x: Images, y: Labels, check: Callable[[int], None]) -> tuple[Network, Tensor, Tensor]:
    """The network, images (floats [N, C, H, W] in [0, 1]) and labels (int64 [N]), all where the network's weights lie.

    UserError, in a sentence, for what they cannot be made of.
    """
    images = as_images(x)
    labels = as_labels(y, len(images))
    network = Network(model, int(labels.max()) + 1 if len(labels) else 0, check)
    weights = next(chain(network.parameters(), network.buffers()), images)
    return network, to_unit(images).to(weights.device), labels.to(weights.device)


def as_images(x: Images) -> Tensor:
    """Images [N, C, H, W] as uint8, or as floats in [0, 1] of 32 bits or 64, told apart by their dtype.

    UserError for all else.
    """
    images = _tensor(x, "x")
    if images.dim() != 4:
        hint = "give images [N, C, H, W]"
        if images.dim() == 3:
            hint += ": x[:, None] for grey images [N, H, W], x[None] for a single one [C, H, W]"
        raise UserError(f"x has the shape {list(images.shape)}; {hint}.")
    if images.shape[3] in (1, 3, 4) and min(images.shape[1:3]) > 4:
        raise UserError(
            f"x has the shape {list(images.shape)}, channels last; give images [N, C, H, W]: x.permute(0, 3, 1, 2) of "
            "a tensor, x.transpose(0, 3, 1, 2) of an array."
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UserError(f"x is {images.dtype}; give uint8 (grey levels 0 to 255) or floats in [0, 1].")
    images = images.detach() if images.dtype == torch.float64 else images.detach().float()
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        if not bool(images.isfinite().all()):
            raise UserError(
                "x holds NaN or infinity; give floats in [0, 1], or uint8 - any normalisation belongs into the network."
            )
        low, high = float(images.min()), float(images.max())
        raise UserError(
            f"x lies in [{low:.3g}, {high:.3g}] and images in [0, 1] are needed: divide grey levels by 255; "
            "normalisation belongs into the network, as its first layer."
        )
    return images


def to_unit(images: Tensor) -> Tensor:
    """The images as floats in [0, 1], which they may be already."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def as_labels(y: Labels, count: int) -> Tensor:
    """The labels of `count` images as int64 [N]; UserError for all that are no class numbers."""
    labels = _tensor(y, "y")
    if labels.dim() == 2 and len(labels) == count:
        hint = "y[:, 0]" if labels.shape[1] == 1 else "y.argmax(1)"
        raise UserError(f"y has the shape {list(labels.shape)}; give the number of its class for each image: {hint}.")
    if labels.dim() != 1 or len(labels) != count:
        raise UserError(f"y has the shape {list(labels.shape)} for {count} images; give a label for each: [{count}].")
    if labels.is_floating_point() or labels.is_complex():
        raise UserError(f"y is {labels.dtype}; give whole class numbers, 0 for the first class: y.long() of a tensor.")
    labels = labels.long()
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"y holds {int(labels.min())}; classes are numbered from 0 on.")
    return labels


def random_numbers(generator: torch.Generator | None, seed: int | None, device: torch.device) -> torch.Generator:
    """The generator given, or one on `device` that depends on `seed` alone (0 where neither is given)."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise UserError(f"{generator!r} is no torch.Generator; give a seed by its name: seed=0.")
    if generator is None:
        return keyed(device, whole_seed(seed or 0))
    if seed is not None:
        raise UserError("a generator and a seed are both given; give one of them.")
    if generator.device.type != device.type:
        raise UserError(
            f"the generator is on {generator.device} and the network on {device}; give seed=, or one there."
        )
    return generator


def whole_seed(seed: SupportsIndex) -> int:
    """A seed as an int; UserError for what is no whole number."""
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        raise UserError(f"seed={seed!r} is not a whole number.")
    return index(seed)


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_meta:
            raise UserError(f"{name} is on the meta device, where tensors hold no numbers; give one that does.")
        value = value.to_dense() if value.layout is not torch.strided else value
        return value.clone() if value.is_inference() else value  # of which autograd would know nothing
    wanted = UserError(
        f"{name} is of type {type(value).__name__} and no array of numbers; give a torch tensor or a numpy array."
    )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths, a data set
        raise wanted from None
    if array.dtype.kind in "US" or (array.dtype.kind == "O" and any(isinstance(v, str) for v in array.flat)):
        what = "class numbers: classes.index(name) for each" if name == "y" else "images: a tensor or an array"
        raise UserError(f"{name} holds strings; give {what}.")
    if array.dtype.kind not in "bfiu":
        raise wanted
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))
