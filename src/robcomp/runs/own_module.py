"""An architecture of the user's own: attacked and weighed as it is, without being packed."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from robcomp import artifact, data, storage
from robcomp.attacks.inputs import Network
from robcomp.errors import UserError
from robcomp.evaluation.cost import macs
from robcomp.evaluation.size import FULL_BITS, layer_size, sizes
from robcomp.hardware import choose_device
from robcomp.models import importing
from robcomp.models.base import ModelConfig
from robcomp.models.parameterisation import weight_layers
from robcomp.report.schema import Report
from robcomp.report.size import LayerSize, Macs, Size
from robcomp.report.terminal import say
from robcomp.runs import beforehand, effect, evaluate, identity, own_code
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
    own = own_code.imported(said, config.seed)
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
    sources = [storage.file_digest(path) for path in own_code.sources(said.partition(":")[0])]
    digest = storage.digest([said, sources, _state_digest(own.model)], length=64)
    named = [digest, identity.origin(config)["dataset"], identity.evaluation(config, dataset)]
    folder = Path(config.out) / f"{config.dataset.name}-{own.name}-external" / storage.digest(named)
    with storage.locked(folder / "lock", f"evaluating {said}"):
        if not config.fresh and Report.present(folder / "report.json"):
            say(console, f"already evaluated: {folder} (fresh=true repeats it)")
        else:
            weighed = _weighed(own, network, shape, digest)
            env = Environment(device, "float32")
            with own_code.in_words(said, own.source):
                report = evaluate.report(weighed, config, overrides, folder, dataset, env, [], console)
            evaluate.finish(folder, replace(report, run=replace(report.run, model=own.name, method="external")))
    return folder


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key == "model" or (key.startswith("model.") and key != "model.weights"):
            raise UserError(
                f"{override} is for robcomp's own networks, and module= brings the whole network; leave it out "
                "(model.weights=FILE is allowed, and fills the network)."
            )


def _checked(own: own_code.OwnNetwork, shape: tuple[int, int, int], classes: int, device: torch.device) -> Network:
    """The network as attacks know it, once it has answered one image with a logit for each class."""
    with own_code.in_words(own.said, own.source), torch.no_grad():
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


def _weighed(own: own_code.OwnNetwork, network: Network, shape: tuple[int, int, int], digest: str) -> evaluate.Weighed:
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
