"""Packed networks as modules of torch."""

import os
from pathlib import Path

import torch
from torch import nn

from robcomp import artifact
from robcomp.errors import UserError


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The network of a model.rcz file, or of a run directory, in eval mode on the CPU.

    logits = model(x), x float32 [N, C, H, W] in [0, 1]; `model.class_names` names the classes, a tuple of str (numbers
    as text where the data set has no names, and for files of earlier versions). torch's random numbers go on as if
    nothing had been loaded. UserError where there is no such file, or it is damaged.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        folder, file = file, file / "model.rcz"
        if not file.is_file():
            raise UserError(f"{folder} holds no model.rcz; give the directory of a finished run, or a model.rcz.")
    with torch.random.fork_rng(devices=[]):  # a network is built with fresh weights before the file fills it
        model, spec, _ = artifact.load(file)
    vars(model)["class_names"] = spec.class_names  # torch's own stubs know attributes of tensors and modules alone
    return model
