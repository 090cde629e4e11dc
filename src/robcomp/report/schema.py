"""report.json: every key with its meaning and unit.

docs/report.md lists the same keys, made from here by scripts/render_docs.py. Fractions are between 0 and 1, times in
seconds, eps is a fraction of the [0, 1] pixel range.
"""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.accuracy import Accuracy, Verdict
from robcomp.report.records import Document, meaning
from robcomp.report.size import Density, Macs, Size

DOUBT = " (!)"  # behind each figure under attack whose verdict has a flag


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run was computed on."""

    device: str = meaning("`cpu` or `cuda`")
    name: str = meaning("name of the processor or accelerator")
    threads: int | None = meaning("CPU threads of torch", default=None)
    torch: str = meaning("version of torch")
    precision: str = meaning("number format of the forward and backward passes in training, `float32` or `bf16`")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was trained, how, when and on what."""

    id: str = meaning("hash of the configuration as it takes effect; the name of the run directory")
    dataset: str = meaning("name of the data set, as on the command line")
    model: str = meaning("name of the model")
    method: str = meaning("name of the method; `external` for a network that was trained elsewhere")
    seed: int = meaning("the one seed; it decides data order, initial weights, augmentation and attacks")
    finished: str = meaning("when the run ended, ISO 8601 with time zone")
    seconds: float = meaning(
        "time of all stages and of the evaluation; a cached stage counts the time that it once took"
    )
    train_epochs: int = meaning("epochs of all stages together, cached ones included")
    selection: str = meaning(
        "whose weights a stage hands on: of the `last` epoch, or of the `best` on held-out training images; test "
        "images choose only where `method.quirks=[test_selection]` asks for it: `best_on_test`"
    )
    settings: list[str] = meaning(
        "in words, what was trained otherwise than the method does by itself: another objective, averaged weights, "
        "quirks of a published code",
        default=list,
    )
    overrides: list[str] = meaning("what the command line set, in its order")
    machine: Machine = meaning("what the run was computed on")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images: how many were used for what, and which these are."""

    name: str = meaning("name of the data set")
    train: int = meaning("images trained on, the held-out ones not counted")
    val: int = meaning("training images held out for selection and progress")
    test: int = meaning("test images evaluated")
    classes: int = meaning("number of classes")
    official: bool = meaning("whether these are the published images in their own split and order")
    own: bool = meaning("whether they are the user's own images (`dataset.path`)", default=False)
    source: str | None = meaning("in words, where the data came from", default=None)
    checksum: str = meaning("digest of the stored data")


@dataclass(frozen=True, kw_only=True)
class Threat:
    """The perturbations that a model is trained against."""

    norm: str = meaning("norm of the perturbations, such as `Linf`")
    eps: float = meaning("their largest size, as a fraction of the pixel range")


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """One stage of the training."""

    name: str = meaning("name of the stage")
    key: str = meaning("hash of everything that led to its result, its name in the stage cache")
    epochs: int = meaning("its epochs")
    seconds: float = meaning("time of its training, when it was trained")
    cached: bool = meaning("whether its result came from the cache")
    images_per_second: float | None = meaning("training images a second in the median epoch; null without epochs")


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """A later evaluation of a finished run."""

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    overrides: list[str] = meaning("what its command line set")
    machine: Machine = meaning("what it was computed on")
    threat: Threat = meaning("the threat model of its figures")
    data: DataFacts = meaning("the images that it was made on")


@dataclass(frozen=True, kw_only=True)
class Report(Document):
    """All that a finished run found; the console's tables, report.md and the papers' tables are made from it."""

    SCHEMA: ClassVar[str] = "robcomp-report/3"
    AGAIN: ClassVar[str] = "train again by the same command, which takes its stages from the cache"

    run: RunFacts = meaning("what was trained")
    data: DataFacts = meaning("the images")
    threat: Threat = meaning("what the model is trained against")
    stages: list[StageFacts] = meaning("the stages of the training, in order; none of an external network")
    accuracy: Accuracy = meaning("what the network that was written to disk and read back classifies correctly")
    verdict: Verdict | None = meaning(
        "whether these figures can be trusted; absent with `attack.verdict=0`, and where every eps is 0", default=None
    )
    evaluation: EvaluationFacts | None = meaning(
        "only in `evaluation-*.json`, which `robcomp evaluate` writes: accuracy and verdict are of this later "
        "evaluation, all else of the training run",
        default=None,
    )
    size: Size = meaning("how small the network is")
    density: Density = meaning("where its weights are")
    macs: Macs | None = meaning(
        "what it computes; absent for an architecture of one's own (`module=`) that has other weights than those of "
        "convolutions and linear layers",
        default=None,
    )

    @property
    def evaluated(self) -> "EvaluationFacts | Report":
        """Whose threat and data the accuracies are of: the later evaluation, where the report is of one."""
        return self.evaluation or self

    @property
    def doubt(self) -> str:
        """The mark behind a figure under attack: empty where no flag was raised."""
        return DOUBT if self.verdict is not None and self.verdict.trusted is False else ""
