"""Trained weights from elsewhere into a freshly built dense network: by name, all of them, or not at all.

Files are safetensors, or checkpoints of torch.save that hold tensors only. The names may be robcomp's own or those of
a code base that the network knows (`ModelConfig.names_elsewhere`), under any common prefix such as `module.`.
"""

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robcomp.errors import UserError
from robcomp.models.base import ConvBN, ModelConfig
from robcomp.models.parameterisation import weight_layers

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
SHOWN = 3  # names in a message
REMEDY = "write it anew where it was made, by torch.save(model.state_dict(), FILE)"


def load_weights(model: nn.Module, cfg: ModelConfig, path: Path, own: str = "robcomp") -> str:
    """Fill `model`, which `cfg` has just built, from the file at `path`; a sentence on what was mapped (`fill`)."""
    return fill(model, cfg, path, _read(path), own)


def fill(model: nn.Module, cfg: ModelConfig, path: Path, file: Mapping[str, Tensor], own: str = "robcomp") -> str:
    """Fill `model` from the tensors `file`, read from `path`; a sentence on what was mapped.

    Every tensor of the network is filled and every tensor of the file used, but for those that `unused_elsewhere`
    names; or it is a UserError and the network is as before. The bias of a convolution that has none here moves into
    its batch norm (running_mean - bias: exact). Counters of batch norms may be absent. With `cfg.new_head` the last
    layer keeps its fresh weights, and the file may hold any other in its place, or none. `own`: whose names the
    network's are, in messages.
    """
    styles = {own: {name: name for name, _ in model.named_modules()}, **cfg.names_elsewhere()}
    fits = [_fit(model, file, style, names, cfg) for style, names in styles.items()]
    best = max(fits, key=lambda fit: (len(fit.found), -len(fit.unused), -len(fit.unlike)))
    if best.missing or best.unused or best.unlike:
        raise _misfit(model, cfg, path, best)
    tensors = {ours: file[theirs] for ours, theirs in best.found.items()}
    for name in (*best.found.values(), *best.biases.values()):
        if not file[name].float().isfinite().all():
            raise UserError(f"{path} holds NaN or infinity in {name}; give a checkpoint from before training diverged.")
    for bn, bias in best.biases.items():
        tensors[f"{bn}.running_mean"] = tensors[f"{bn}.running_mean"].float() - file[bias].float()
    model.load_state_dict({**model.state_dict(), **tensors})
    return _story(path, file, best) + cfg.reminder(best.style)


def _head(model: nn.Module) -> str:
    """The path of the last layer, whose outputs are the classes."""
    return list(weight_layers(model))[-1]


@dataclass(frozen=True)
class _Fit:
    """How far a file answers to one style of names; ours: names in the network's state dict, theirs: in the file."""

    style: str
    prefix: str
    found: dict[str, str]  # ours to theirs
    biases: dict[str, str]  # path of our batch norm to their bias of the convolution before it
    dropped: set[str]  # theirs, of the last layer, with cfg.new_head
    missing: list[str]  # ours
    unused: list[str]  # theirs
    unlike: dict[str, str]  # ours to the difference in words
    shapes: dict[str, tuple[int, ...]]  # ours to the shape of theirs, where they differ


def _fit(model: nn.Module, file: Mapping[str, Tensor], style: str, names: Mapping[str, str], cfg: ModelConfig) -> _Fit:
    own = model.state_dict()
    places = ((ours, *ours.rpartition(".")) for ours in own)
    wanted = {ours: f"{names[module]}.{leaf}" for ours, module, _, leaf in places if module in names}
    prefix = _prefix(set(wanted.values()), file)
    found = {ours: prefix + theirs for ours, theirs in wanted.items() if prefix + theirs in file}
    pairs = [name for name, module in model.named_modules() if isinstance(module, ConvBN) and f"{name}.conv" in names]
    biases = {f"{name}.bn": f"{prefix}{names[f'{name}.conv']}.bias" for name in pairs}
    biases = {bn: bias for bn, bias in biases.items() if bias in file}
    head = {ours for ours in own if ours.rpartition(".")[0] == _head(model)} if cfg.new_head else set()
    dropped = {found.pop(ours) for ours in head & found.keys()}
    like = [(ours, theirs, own[ours]) for ours, theirs in found.items()]
    like += [(f"{bn}.running_mean", bias, own[f"{bn}.running_mean"]) for bn, bias in biases.items()]
    used = dropped | {theirs for _, theirs, _ in like}
    ignored = cfg.unused_elsewhere
    return _Fit(
        style,
        prefix,
        found,
        biases,
        dropped,
        missing=[o for o in own if o not in found and o not in head and not o.endswith(".num_batches_tracked")],
        unused=[
            theirs for theirs in file if theirs not in used and not theirs.removeprefix(prefix).startswith(ignored)
        ],
        unlike={ours: words for ours, theirs, t in like if (words := _difference(theirs, file[theirs], t))},
        shapes={ours: tuple(file[theirs].shape) for ours, theirs, t in like if file[theirs].shape != t.shape},
    )


def _prefix(wanted: set[str], file: Mapping[str, Tensor]) -> str:
    """What stands before the most of the `wanted` names in the file: '', 'module.', 'model.backbone.', ..."""
    seen: Counter[str] = Counter()
    for name in file:
        parts = name.split(".")
        tails = [".".join(parts[i:]) for i in range(len(parts))]
        seen.update(name.removesuffix(tail) for tail in tails if tail in wanted)
    return min(seen, key=lambda prefix: (-seen[prefix], len(prefix)), default="")


def _difference(name: str, theirs: Tensor, ours: Tensor) -> str | None:
    if theirs.shape != ours.shape:
        return f"{name}: file {list(theirs.shape)}, model {list(ours.shape)}"
    if theirs.is_floating_point() != ours.is_floating_point():
        return f"{name}: file {theirs.dtype}, model {ours.dtype}"
    return None


def _misfit(model: nn.Module, cfg: ModelConfig, path: Path, fit: _Fit) -> UserError:
    own = [name for name in model.state_dict() if not name.endswith(".num_batches_tracked")]
    where = f" under '{fit.prefix}'" if fit.prefix else ""
    faults = {
        "missing in the file": fit.missing,
        "not used": fit.unused,
        "of another shape or kind": [*fit.unlike.values()],
    }
    listed = "; ".join(f"{len(names)} {fault} ({_first(names)})" for fault, names in faults.items() if names)
    hint = cfg.advice(fit.shapes) + _other_classes(model, fit)
    if any(re.search(r"(^|\.)(mean|std|means|stds|sds)$", name) for name in fit.unused):
        hint += "give a normalisation as model.mean and model.std and take it out of the file; "
    name, found = cfg.name or cfg.kind, sum(name in fit.found for name in own)
    return UserError(
        f"{path} does not fit model={name}: the best match, by the names of {fit.style}{where}, "
        f"finds {found} of {len(own)} tensors; {listed}; {hint}"
        f"choose the model that the file belongs to, or rename its tensors to robcomp's names ({_first(own)})."
    )


def _other_classes(model: nn.Module, fit: _Fit) -> str:
    """What to set where the last layer is of as many inputs and other classes, ending in '; '; or nothing."""
    head = f"{_head(model)}.weight"
    wanted, given = model.state_dict()[head].shape, fit.shapes.get(head, ())
    if given[1:] != wanted[1:]:
        return ""
    return (
        f"the file's network tells {given[0]} classes apart and this one {wanted[0]}: model.new_head=true trains on "
        "from its other layers, with a new last one; "
    )


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _story(path: Path, file: Mapping[str, Tensor], fit: _Fit) -> str:
    story = f"{path.name}: {len(file)} tensors, matched by the names of {fit.style}"
    if fit.prefix:
        story += f" under '{fit.prefix}'"
    if fit.biases:
        story += f", {len(fit.biases)} convolution biases moved into batch norms"
    if fit.dropped:
        story += f" but its last layer ({_first(sorted(fit.dropped))}), which starts anew"
    if re.search(r"(^|\.)[1-9]\d*\.", fit.prefix):  # the network was not the first of an nn.Sequential
        story += "; a layer without tensors stood before them: if it normalised, set model.mean and model.std"
    return story


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of the file at `path` by name, on the CPU."""
    if path.is_dir():
        raise UserError(f"model.weights={path} is a folder; give the file in it that holds the weights.")
    try:
        if not path.stat().st_size:
            raise UserError(f"model.weights={path} is empty; copy it again from where it was made.")
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); copy it again, or {REMEDY}.") from error
    except OSError as error:
        raise UserError(f"model.weights={path} cannot be read ({error.strerror or error}); check the path.") from error
    while isinstance(content, Mapping):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict; {REMEDY}.")
    tensors = {str(name): tensor.to_dense() for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors under {', '.join(CONTAINERS)} or at its top; {REMEDY}.")
    return tensors


def _unpickle(path: Path) -> Any:
    """The content of a torch checkpoint, from which no code is run."""
    try:
        with warnings.catch_warnings(action="ignore"):  # on kinds of file that are then refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # on damaged bytes the reader raises errors of any kind
        foreign = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign:
            raise UserError(
                f"{path} holds more than tensors ({foreign[1]}), and robcomp runs no code from files; if you trust it, "
                "load it in Python and keep the tensors alone by torch.save(model.state_dict(), FILE)."
            ) from None
        raise UserError(
            f"{path} is cut short, damaged or no checkpoint of torch; copy it again, or {REMEDY}."
        ) from error
