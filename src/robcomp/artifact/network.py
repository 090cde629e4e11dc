"""A network in a model.rcz file: the tensors, and a header from which the network is rebuilt."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from robcomp.artifact.format import MAGIC, pack, unpack
from robcomp.errors import UserError
from robcomp.models import MODELS
from robcomp.models.base import ModelConfig
from robcomp.models.parameterisation import form_of, restore, to_spec
from robcomp.storage import kind_of, left_out


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build the empty network: the model's settings and the images it is for.

    class_names: `classes` of them; without any they are the numbers from 0 on.
    """

    model: ModelConfig
    shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.classes))))
        if len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} names for {self.classes} classes")

    def build(self) -> nn.Module:
        """The dense network with fresh weights."""
        return self.model.build(self.shape, self.classes)


def save(model: nn.Module, spec: NetworkSpec, bits: int, path: Path) -> int:
    """Pack `model` into `path`; returns the file's bytes. `bits` is the nominal width of a stored weight."""
    settings = replace(spec.model, weights=None, new_head=False)  # how it began, which the file need not know
    shown = {name: value for name, value in asdict(settings).items() if name not in left_out(settings)}
    header: dict[str, Any] = {
        "model": {"kind": kind_of(type(settings)), **shown},
        "shape": list(spec.shape),
        "classes": spec.classes,
        "form": to_spec(form_of(model)),
        "bits": bits,
    }
    if spec.class_names != replace(spec, class_names=()).class_names:  # mere numbers need no bytes
        header["class_names"] = list(spec.class_names)
    # + 0: a masked weight may be -0.0, which the format would keep as a value
    return pack({name: tensor.detach().cpu() + 0 for name, tensor in model.state_dict().items()}, header, path)


def is_packed(path: Path) -> bool:
    """Whether the file at `path` is a model.rcz by its name or by its first bytes; False where there is none."""
    if path.suffix == ".rcz" or not path.is_file():
        return path.is_file()
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def load(path: Path) -> tuple[nn.Module, NetworkSpec, int]:
    """The network of a model.rcz file in eval mode on the CPU, how to build it, and its nominal bits."""
    tensors, header = unpack(path)
    try:
        settings = dict(header["model"])
        names = tuple(header.get("class_names", ()))
        spec = NetworkSpec(MODELS[settings.pop("kind")](**settings), tuple(header["shape"]), header["classes"], names)
        model = spec.build()
        restore(model, header["form"], tensors)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not hold a network this version of robcomp can build ({error}).") from None
    return model.eval(), spec, header["bits"]
