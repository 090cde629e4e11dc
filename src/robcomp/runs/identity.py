"""What names a run, a stage and an evaluation: all that decides their figures, as JSON, hashed by whoever keeps them.

Nothing here depends on paths, on names of classes or on settings that change nothing (`storage.describe`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robcomp import data, storage
from robcomp.errors import UserError
from robcomp.evaluation import evaluator, verdict
from robcomp.hardware import choose_device, choose_precision
from robcomp.settings.schema import Config
from robcomp.trainers.loop import stage_loop
from robcomp.trainers.stage import Stage


def run_directory(config: Config) -> Path:
    """<out>/<dataset>-<model>-<method>/<hash>.

    The hash is of the configuration as it takes effect: the stages with the revisions of their algorithms, the attacks
    as built, the precision as resolved; not of paths, nor of schedules that the method does not use.
    """
    parts: dict[str, Any] = {
        "loop": stage_loop.REVISION,
        **origin(config),
        "method": config.method.name,  # its settings are in its stages
        "stages": storage.describe(config.stages()),
        "training": training(config),
        "threat": storage.describe(config.threat),
        "attacks": suite(config),
        "precision": precision(config),
        "seed": config.seed,
    }
    if config.dataset.path:
        parts["images"] = data.stamp(config.dataset, Path(config.data_dir)), config.dataset.test_fraction
    name = f"{config.dataset.name}-{config.model.name}-{config.method.name}"
    return Path(config.out) / name / storage.digest(parts)


def precision(config: Config) -> str:
    """float32 or bf16, in which the run trains; only where it is auto does that depend on this machine."""
    chosen = config.training.precision
    return choose_precision(chosen, choose_device(config.device)) if chosen == "auto" else chosen


def stage(
    config: Config, origin: dict[str, Any], stages: Sequence[Stage], checksum: str, precision: str
) -> dict[str, Any]:
    """Everything that leads to the result of the last of `stages`, on the images of that checksum."""
    dataset = {key: value for key, value in origin["dataset"].items() if key != "test_subset"}
    return {
        "loop": stage_loop.REVISION,
        "data": checksum,
        "dataset": dataset,
        "model": origin["model"],
        "seed": config.seed,
        "precision": precision,
        "training": training(config),
        "stages": storage.describe(stages),
    }


def evaluation(config: Config, dataset: data.Dataset) -> list[Any]:
    """All that decides an evaluation's figures, the network apart."""
    return [*suite(config), config.seed, config.dataset.test_subset, dataset.checksum]


def suite(config: Config) -> list[Any]:
    """The attack suite with the revisions of what runs it."""
    return [config.attack.identity(), evaluator.REVISION, verdict.REVISION]


def training(config: Config) -> dict[str, Any]:
    """What decides any stage's result beside its description: the loop's settings, as they take effect."""
    settings = storage.describe(config.training)
    for name in ("attack", "natural_weight", "lr_scale", "precision", "graphs"):  # in the stages, added here, no matter
        del settings[name]
    chosen_on = {"chosen_on": config.dataset.test_subset} if config.selection == "best_on_test" else {}
    validation = storage.describe(config.inner_attack())
    return settings | {"selection": config.selection, "validation": validation} | chosen_on


def origin(config: Config) -> dict[str, Any]:
    """The settings of data set and model by what they stand for: no paths, but the digest of the weights to begin with.

    What images they lead to is for the caller to add: a folder's stamp, or the checksum of the images.
    """
    dataset, model = storage.describe(config.dataset), storage.describe(config.model)
    del dataset["path"], dataset["test_fraction"]
    if weights := config.model.weights:
        if not Path(weights).is_file():
            raise UserError(
                f"model.weights={weights} is not a file; give a .safetensors file, a torch checkpoint or a model.rcz."
            )
        model["weights"] = storage.file_digest(Path(weights))
    return {"dataset": dataset, "model": model}
