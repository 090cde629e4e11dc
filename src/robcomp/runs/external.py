"""An external network, trained elsewhere: packed like one of ours, attacked and reported."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from robcomp import artifact, data, storage
from robcomp.artifact import NetworkSpec
from robcomp.errors import UserError
from robcomp.hardware import choose_device
from robcomp.report.schema import Report
from robcomp.report.terminal import say
from robcomp.runs import beforehand, evaluate, identity, weights
from robcomp.settings.schema import Config
from robcomp.trainers.state import Environment


def evaluate_external(config: Config, overrides: Sequence[str], console: Console) -> Path:
    """Attack the network of model.weights; returns its run directory,
    <dataset>-<model>-external/<hash>, without stages.

    UserError without weights, where they do not fit the model, or where model.new_head would leave some of them out.
    A finished evaluation is not run again.
    """
    if not config.model.weights:
        raise UserError(
            "evaluate takes run=DIR for a finished run, model=... model.weights=FILE for a network trained elsewhere, "
            "or module=PACKAGE.MODULE:NAME for an architecture of your own."
        )
    if config.model.new_head:
        raise UserError(
            "model.new_head=true leaves the last layer of the network untrained, so there is nothing to evaluate; "
            "train it first: robcomp train ... model.weights=FILE model.new_head=true."
        )
    beforehand.writable(Path(config.out))
    device = choose_device(config.device)
    settings = replace(config.dataset, subset=None, val=0)  # none is trained on
    dataset = data.load(settings, Path(config.data_dir), device)
    named = [identity.origin(config), identity.evaluation(config, dataset)]
    folder = Path(config.out) / f"{config.dataset.name}-{config.model.name}-external" / storage.digest(named)
    config.attack.check(len(dataset.classes))
    for sentence in beforehand.shortened(config, dataset):
        say(console, sentence)
    with storage.locked(folder / "lock", f"evaluating {config.model.weights}"):
        if not config.fresh and Report.present(folder / "report.json"):
            say(console, f"already evaluated: {folder} (fresh=true repeats it)")
        else:
            channels, height, width = config.dataset.shape
            spec = NetworkSpec(config.model, (channels, height, width), len(dataset.classes), dataset.classes)
            model, bits, story = weights.as_stored(spec, Path(config.model.weights))
            say(console, f"weights: {story}")
            artifact.save(model, spec, bits, folder / "model.rcz")
            env = Environment(device, "float32")
            weighed = evaluate.packed(folder / "model.rcz")
            report = evaluate.report(weighed, config, overrides, folder, dataset, env, [], console)
            evaluate.finish(folder, replace(report, run=replace(report.run, method="external")))
    return folder
