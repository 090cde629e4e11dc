"""An architecture of the user's own: imported, attacked and weighed as it is, without being packed."""

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from rich.console import Console
from torch import nn

import robcomp
from robcomp import artifact, data, storage
from robcomp.attacks.inputs import Network
from robcomp.errors import UserError
from robcomp.evaluation.cost import macs
from robcomp.evaluation.size import FULL_BITS, layer_size, sizes
from robcomp.hardware import choose_device
from robcomp.models import importing
from robcomp.models.base import ModelConfig
from robcomp.models.parameterisation import weight_layers
from robcomp.report.schema import LayerSize, Macs, Report, Size
from robcomp.report.terminal import say
from robcomp.runs import beforehand, effect, evaluate, identity
from robcomp.settings.schema import Config
from robcomp.trainers.state import Environment

WEIGHTS = (
    "Weights are all parameters of two or more dimensions. The size is the number of those that are not zero times 32 "
    "bits; the fraction is of 32 bits for every weight. Not counted: where the non-zeros are, biases, normalisation."
)
STATE = (
    "Bytes of the network's state (parameters and buffers) as a float32 safetensors file. A network of one's own is "
    "not packed, so the fraction is 1; the code that builds it is not counted."
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
EXAMPLE = "module=package.module:factory"


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """The network of `said` (package.module:name), in eval mode on the CPU, and the file whose code made it."""

    said: str
    name: str
    model: nn.Module
    source: Path | None


def evaluate_module(said: str, config: Config, overrides: Sequence[str], console: Console) -> Path:
    """Attack the network that `said` names; returns its run directory, <dataset>-<name>-external/<hash>.

    model.weights=FILE fills it by the names of its own state dict. The hash is of its state, of the source of its
    module and of those of the user's own that it imports, and of the evaluation, so a changed network is another
    evaluation; a finished one is not run again. UserError for a module that cannot be imported or does not work, with
    the place in the user's own code.
    """
    _check_overrides(overrides)
    effect.check([effect.Job(list(overrides))], effect.OWN_MODULE)
    beforehand.writable(Path(config.out))
    own = imported(said, config.seed)
    if config.model.weights:
        story = importing.load_weights(
            own.model, ModelConfig(name=said), Path(config.model.weights), "the network itself"
        )
        say(console, f"weights: {story}")
    device = choose_device(config.device)
    settings = replace(config.dataset, subset=None, val=0)  # none is trained on
    dataset = data.load(settings, Path(config.data_dir), device)
    config.attack.check(len(dataset.classes))
    for sentence in beforehand.shortened(config, dataset):
        say(console, sentence)
    shape = (config.dataset.shape[0], config.dataset.shape[1], config.dataset.shape[2])
    network = _checked(own, shape, len(dataset.classes), device)
    sources = [storage.file_digest(path) for path in _sources(said.partition(":")[0])]
    digest = storage.digest([said, sources, _state_digest(own.model)], length=64)
    named = [digest, identity.origin(config)["dataset"], identity.evaluation(config, dataset)]
    folder = Path(config.out) / f"{config.dataset.name}-{own.name}-external" / storage.digest(named)
    with storage.locked(folder / "lock", f"evaluating {said}"):
        if not config.fresh and Report.present(folder / "report.json"):
            say(console, f"already evaluated: {folder} (fresh=true repeats it)")
        else:
            weighed = _weighed(own, network, shape, digest)
            env = Environment(device, "float32")
            with _in_words(said, own.source):
                report = evaluate.report(weighed, config, overrides, folder, dataset, env, [], console)
            evaluate.finish(folder, replace(report, run=replace(report.run, model=own.name, method="external")))
    return folder


def imported(said: str, seed: int) -> OwnNetwork:
    """The network of package.module:name, from the working directory or the installed packages.

    `name` is a module of torch, or a function or class that makes one without arguments; its fresh weights are drawn
    from `seed`.
    """
    place, colon, name = said.partition(":")
    if not colon or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place) or not name.isidentifier():
        raise UserError(f"module={said} is not PACKAGE.MODULE:NAME; write it as in {EXAMPLE}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    torch.manual_seed(seed)
    module = _module(said, place)
    source = Path(module.__file__) if module.__file__ else None
    if not hasattr(module, name):
        raise UserError(f"module={said}: {_shown(str(source or place))} has no '{name}'; name what is defined there.")
    made = getattr(module, name)
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise UserError(
                f"module={said} is of type {type(made).__name__}; give a torch.nn.Module, or a function or class that "
                "takes no arguments and makes one."
            )
        _check_call(said, made)
        torch.manual_seed(seed)  # again: an import that drew numbers happens once a process
        with _in_words(said, source), redirect_stdout(sys.stderr):
            made = made()
    if not isinstance(made, nn.Module):
        raise UserError(f"module={said} returns something of type {type(made).__name__}; return a torch.nn.Module.")
    return OwnNetwork(said, name, made.cpu().eval(), source)


def _check_call(said: str, made: Callable[..., object]) -> None:
    """UserError where what is to make the network cannot be called without arguments."""
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        raise UserError(
            f"module={said} cannot be called without arguments ({error}); name a function that calls it with yours."
        ) from None
    except ValueError:  # written in C, without a signature
        return


def _module(said: str, place: str) -> ModuleType:
    try:
        with redirect_stdout(sys.stderr):  # where --json prints, nothing else may
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if not f"{place}.".startswith(f"{missing}."):  # something that the user's module imports
            where = _where(error, None)
            raise UserError(f"module={said}: {where}: {error}; install it, or correct the import.") from None
        raise UserError(
            f"module={said}: no module '{missing}' in {os.getcwd()} or among the installed packages; run robcomp in "
            "the folder where it lies, or install it."
        ) from None
    except (Exception, SystemExit) as error:
        raise _sentence(said, error, None) from None


@contextmanager
def _in_words(said: str, source: Path | None) -> Iterator[None]:
    """What goes wrong in the user's code, as one sentence that names file and line."""
    try:
        yield
    except UserError as error:
        if error.__cause__ is None:
            raise
        raise UserError(f"module={said}: {_where(error.__cause__, source)}: {error}") from None
    except (Exception, SystemExit) as error:
        if not _frames(error, source):  # none of the user's doing
            raise
        raise _sentence(said, error, source) from None


def _sentence(said: str, error: BaseException, source: Path | None) -> UserError:
    if isinstance(error, SystemExit):
        what = "it ends the program (sys.exit); leave that out."
    else:
        message = error.msg if isinstance(error, SyntaxError) else str(error).strip()
        what = f"{type(error).__name__}: {(message or 'no message').splitlines()[0]}"
    return UserError(f"module={said}: {_where(error, source)}: {what}")


def _where(error: BaseException, source: Path | None) -> str:
    """'net.py, line 12': the last line of the user's code on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}"
    for frames in (_frames(error, source), _frames(error, None)):
        if frames:
            return f"{_shown(frames[-1].filename)}, line {frames[-1].lineno}"
    return "its code"


def _frames(error: BaseException, source: Path | None) -> list[traceback.FrameSummary]:
    """The lines on the way to the error: those of `source`, or those of code that is neither ours nor installed."""
    ours = str(Path(robcomp.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    if source is not None:
        return [frame for frame in frames if Path(frame.filename) == source]
    outside = [f for f in frames if not f.filename.startswith((ours, "<", os.path.dirname(importlib.__file__)))]
    return [f for f in outside if "site-packages" not in f.filename] or outside


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key == "model" or (key.startswith("model.") and key != "model.weights"):
            raise UserError(
                f"{override} is for robcomp's own networks, and module= brings the whole network; leave it out "
                "(model.weights=FILE is allowed, and fills the network)."
            )


def _checked(own: OwnNetwork, shape: tuple[int, int, int], classes: int, device: torch.device) -> Network:
    """The network as attacks know it, once it has answered one image with a logit for each class."""
    with _in_words(own.said, own.source), torch.no_grad():
        network = _Quiet(own.model, 0).eval()
        found = network.to(device)(torch.zeros(2, *shape, device=device)).shape[1]
    if found != classes:
        raise UserError(
            f"module={own.said} returns {found} logits, and the data set has {classes} classes; end it in {classes} "
            "outputs, or choose another dataset=."
        )
    return network.cpu()


class _Quiet(Network):
    """What the network prints goes where errors go: stdout belongs to --json."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with redirect_stdout(sys.stderr):
            return super().forward(x)


def _sources(place: str) -> list[Path]:
    """The files of the module and of all that it imports from its own package or from the folder that it lies in."""
    top, found, todo = place.partition(".")[0], {}, [place]
    home = Path(sys.modules[place].__file__ or "").parents[place.count(".")]
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        path = Path(getattr(module, "__file__", None) or "")
        near = path.is_relative_to(home) and "site-packages" not in path.parts
        if name in found or module is None or not path.is_file() or not (near or name.partition(".")[0] == top):
            continue
        found[name] = path
        held = [*vars(module).values()]
        todo += [
            value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") for value in held
        ]
    return [found[name] for name in sorted(found)]


def _weighed(own: OwnNetwork, network: Network, shape: tuple[int, int, int], digest: str) -> evaluate.Weighed:
    layers = _layers(own.model)
    if not layers:
        raise UserError(f"module={own.said} has no parameter of two or more dimensions, so there is no size to report.")
    state_bytes = artifact.dense_bytes(own.model.state_dict())
    size, density = sizes(layers, FULL_BITS, state_bytes, state_bytes, STATE)
    return evaluate.Weighed(network, digest, _in_our_words(size), density, _macs(own.model, network, shape))


def _in_our_words(size: Size) -> Size:
    return replace(
        size, nominal=replace(size.nominal, definition=WEIGHTS), coded=replace(size.coded, definition=WEIGHTS)
    )


def _layers(model: nn.Module) -> list[LayerSize]:
    """Every parameter of two or more dimensions, by the name of its layer, or by its own where it is no `weight`.

    Filters and channels are those of convolutions and linear layers; shared parameters count once.
    """
    counted = []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or not parameter.numel():
            continue
        path, _, leaf = name.rpartition(".")
        layer = model.get_submodule(path)
        plain = leaf == "weight" and isinstance(layer, (*CONVOLUTIONS, nn.Linear))
        grouped = getattr(layer, "groups", 1) > 1
        found = layer_size(path if leaf == "weight" else name, {leaf: parameter}, parameter.numel(), grouped=grouped)
        counted.append(found if plain else replace(found, channels=None, filters=None))
    return counted


def _macs(model: nn.Module, network: Network, shape: tuple[int, int, int]) -> Macs | None:
    """The operations, where all weights are those of convolutions and linear layers, and all of these are called."""
    counted = {id(layer.weight) for layer in weight_layers(model).values() if isinstance(layer, nn.Conv2d | nn.Linear)}
    if any(id(parameter) not in counted for parameter in model.parameters() if parameter.dim() > 1):
        return None
    found = macs(network, shape)
    if any(not layer.dense for layer in found.layers):
        return None
    return replace(found, layers=[replace(layer, name=layer.name.removeprefix("model.")) for layer in found.layers])


def _state_digest(model: nn.Module) -> str:
    """Names, types, shapes and values of the state dict."""
    described = [
        [name, str(tensor.dtype), list(tensor.shape), storage.bytes_digest(_bytes(tensor))]
        for name, tensor in model.state_dict().items()
    ]
    return storage.digest(described, length=64)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
