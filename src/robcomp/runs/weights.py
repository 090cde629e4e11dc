"""model.weights: trained weights to start from or to evaluate, out of a checkpoint or of a packed model.rcz."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from robcomp import artifact
from robcomp.artifact import NetworkSpec
from robcomp.errors import UserError
from robcomp.models import importing
from robcomp.models.base import ModelConfig
from robcomp.models.parameterisation import Dense, form_of, multiplied_out
from robcomp.trainers.compressors.codebook import FULL_BITS


def start_from(model: nn.Module, cfg: ModelConfig, path: Path) -> str:
    """Fill the dense network `model`, which `cfg` has just built, from the file at `path`; a sentence on what was done.

    Of a model.rcz the dense weights are taken that its layers compute with: U V + C or U V multiplied out, a codebook's
    values as they are. The method that trains on chooses form, budget and codebook anew. UserError where the file does
    not fit.
    """
    if not artifact.is_packed(path):
        return importing.load_weights(model, cfg, path)
    packed, story, _ = _read_packed(model, cfg, path)
    form = form_of(packed)
    return story if isinstance(form, Dense) else f"{story}, its {form.kind.replace('_', '-')} layers multiplied out"


def as_stored(spec: NetworkSpec, path: Path) -> tuple[nn.Module, int, str]:
    """The network in the file at `path`, its nominal bits a weight, and a sentence on what was read; to be evaluated.

    A model.rcz keeps its form and its bits, so that sizes and operations are those of the file. UserError where the
    file does not fit `spec`.
    """
    model = spec.build()
    if not artifact.is_packed(path):
        return model, FULL_BITS, importing.load_weights(model, spec.model, path)
    packed, story, bits = _read_packed(model, spec.model, path)
    return packed, bits, story


def _read_packed(model: nn.Module, cfg: ModelConfig, path: Path) -> tuple[nn.Module, str, int]:
    """The network of a model.rcz as it is stored, whose dense weights are then `model`'s too; a sentence, its bits."""
    packed, spec, bits = artifact.load(path)
    _check_same(cfg, spec.model, path)
    return packed, importing.fill(model, cfg, path, multiplied_out(packed)), bits


def _check_same(chosen: ModelConfig, packed: ModelConfig, path: Path) -> None:
    """UserError, with the settings to give, unless both compute the same with the same weights."""
    same_kind = type(chosen) is type(packed)
    reference = chosen if same_kind else type(packed)()
    given, held = chosen.name or chosen.kind, packed.name or packed.kind
    settings = [] if same_kind else [f"model={held}"]
    for f in fields(packed):
        if f.name not in packed.incidental and getattr(packed, f.name) != getattr(reference, f.name):
            settings.append(f"model.{f.name}={_written(getattr(packed, f.name))}")
    if settings:
        other = "one of other settings" if same_kind else held
        raise UserError(
            f"{path} does not hold the network of model={given} as it is set, but {other}; give {' '.join(settings)}."
        )


def _written(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
