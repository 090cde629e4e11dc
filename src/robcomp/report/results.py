"""What the analyses of finished runs and the papers' tables write: every key with its meaning and unit."""

from dataclasses import dataclass
from typing import Any, ClassVar

from robcomp.report.records import Document, meaning
from robcomp.report.schema import DataFacts, Machine, Proportion, Settings, Threat


@dataclass(frozen=True, kw_only=True)
class Images:
    """The test images of an analysis."""

    name: str = meaning("name of the data set")
    checksum: str = meaning("digest of the stored data")
    test: int = meaning("how many test images were used")
    classes: int = meaning("number of classes")
    official: bool = meaning("whether these are the published images in their own split and order")


@dataclass(frozen=True, kw_only=True)
class AttackedRun:
    """A run whose network is attacked."""

    label: str = meaning("what the run is called in tables and figures")
    folder: str = meaning("its directory")
    sha256: str = meaning("SHA-256 of its model.rcz")
    id: str = meaning("hash of its configuration")
    model: str = meaning("name of its model")
    method: str = meaning("name of its method")
    threat: Threat = meaning("what it was trained against")
    trusted: bool | None = meaning("the verdict in its report; null where it has none, or an open one")


@dataclass(frozen=True, kw_only=True)
class Analysis(Document):
    """What the analyses that attack networks have in common."""

    AGAIN: ClassVar[str] = "run the analysis again with fresh=true"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    machine: Machine = meaning("what it was computed on")
    seed: int = meaning("the seed of the attacks")
    overrides: list[str] = meaning("what its command line set")
    data: Images = meaning("the test images")
    runs: list[AttackedRun] = meaning("the runs")


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Proportion):
    """The accuracy at one budget."""

    eps: float | None = meaning("the budget, of a curve over eps", default=None)
    steps: int | None = meaning("the budget, of a curve over steps", default=None)
    attacked: int = meaning("how many images were attacked: those that no smaller budget had broken")
    seconds: float = meaning("time of the attack")

    @property
    def budget(self) -> float:
        """The eps or the steps."""
        return self.eps if self.eps is not None else self.steps or 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A run under an attack whose budget rises."""

    run: str = meaning("label of the run")
    name: str = meaning("name of the attack in the suite")
    attack: Settings = meaning("its settings")
    points: list[CurvePoint] = meaning("the accuracies, at rising budgets")
    not_run: list[float] = meaning("the budgets left out, as the accuracy had fallen below chance before")
    falls_to_chance: bool | None = meaning("of a curve over eps: whether it ends below chance", default=None)
    whole_range: bool | None = meaning("of a curve over eps: whether the last eps allows any image", default=None)


@dataclass(frozen=True, kw_only=True)
class CurveResult(Analysis):
    """`robcomp curve`: accuracy while the adversary's budget rises."""

    SCHEMA: ClassVar[str] = "robcomp-curve/1"

    over: str = meaning("what rises: `eps` or `steps`")
    curves: list[Curve] = meaning("one for each run and attack")


@dataclass(frozen=True, kw_only=True)
class TargetAccuracy(Proportion):
    """The accuracy of a network that others' images are shown to."""

    target: str = meaning("label of the run that classifies")


@dataclass(frozen=True, kw_only=True)
class TransferCell(TargetAccuracy):
    """The accuracy of a target on the images made on a source."""

    source: str = meaning("label of the run on which the images were made")
    white_box: bool = meaning("whether both are one network")
    seconds: float = meaning("time of making the images")


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Every source against every target."""

    name: str = meaning("name of the attack in the suite")
    eps: float = meaning("its eps")
    attack: Settings = meaning("its settings")
    cells: list[TransferCell] = meaning("source by source, each target")


@dataclass(frozen=True, kw_only=True)
class TransferResult(Analysis):
    """`robcomp transfer`: adversarial images made on one network, shown to others."""

    SCHEMA: ClassVar[str] = "robcomp-transfer/1"

    clean: list[TargetAccuracy] = meaning("each target on the unchanged images")
    matrices: list[TransferMatrix] = meaning("one for each attack and eps")


@dataclass(frozen=True, kw_only=True)
class CombinationRow(Proportion):
    """The accuracy of a run or of the combination, under an attack."""

    attack: str = meaning("name of the attack in the suite; `clean`; `worst_case` over all but the excluded")
    way: str = meaning("`clean`, `alone`, `through` a member, `adaptive`, or `worst` over all ways")
    run: str = meaning("label of the run, or `combined`")
    said: str = meaning("network and way in words")


@dataclass(frozen=True, kw_only=True)
class CombineResult(Analysis):
    """`robcomp combine`: several networks as one, attacked through each member and as a whole."""

    SCHEMA: ClassVar[str] = "robcomp-combine/1"

    attacks: dict[str, Settings] = meaning("the settings of each attack of the suite")
    note: str = meaning("which of the figures counts")
    rows: list[CombinationRow] = meaning("attack by attack")


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """A network's two accuracies."""

    clean: Proportion = meaning("on the unchanged images")
    robust: Proportion = meaning("worst case over the suite")


@dataclass(frozen=True, kw_only=True)
class PrunedLayer(Accuracies):
    """A network of which one layer is pruned."""

    x: float = meaning("the share of the layer's weights that is zero")
    left: int = meaning("stored non-zeros left in the layer")
    clean_reduction_percent: float | None = meaning(
        "100 (1 - accuracy after / accuracy before); negative where it rose, null where it was 0 before"
    )
    robust_reduction_percent: float | None = meaning("the same of the robust accuracy")


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """A layer, pruned by rising shares."""

    name: str = meaning("the layer")
    weights: int = meaning("weights of its dense form")
    nonzero: int = meaning("stored non-zeros in the run's network")
    density: float = meaning("`nonzero` / `weights`; the grey bars of the figure")
    pruned: list[PrunedLayer] = meaning("share by share")


@dataclass(frozen=True, kw_only=True)
class NetworkSensitivity:
    """A network, pruned layer by layer."""

    run: str = meaning("label of the run")
    unpruned: Accuracies = meaning("its accuracies as it is")
    layers: list[LayerSensitivity] = meaning("its conv and linear layers, in the network's order")


@dataclass(frozen=True, kw_only=True)
class SensitivityResult(Analysis):
    """`robcomp sensitivity`: how much accuracy is lost when a single layer is pruned."""

    SCHEMA: ClassVar[str] = "robcomp-sensitivity/1"

    definition: str = meaning("in words, what is measured")
    attacks: dict[str, Settings] = meaning("the settings of each attack of the suite")
    values: list[float] = meaning("the shares x, above 0 and up to 1")
    networks: list[NetworkSensitivity] = meaning("run by run")


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A run as its report names it."""

    label: str = meaning("what the run is called in tables and figures")
    folder: str = meaning("its directory")
    id: str = meaning("hash of its configuration")
    dataset: str = meaning("name of its data set")
    model: str = meaning("name of its model")
    method: str = meaning("name of its method")


@dataclass(frozen=True, kw_only=True)
class WeightCounts(NamedRun):
    """The weights of a run, counted."""

    sha256: str = meaning("SHA-256 of its model.rcz")
    clean: float = meaning("clean accuracy in its report")
    robust: float = meaning("worst case in its report")
    layers: list[str] = meaning("names of the layers counted")
    weights: int = meaning("how many weights")
    zeros: int = meaning("how many of them are zero")
    zero_share: float = meaning("`zeros` / `weights`")
    mean: float = meaning("of all weights, in their own unit, normalised or not")
    standard_deviation: float = meaning("of all weights, likewise")
    nonzero_mean: float = meaning("of the weights that are not zero; 0 where there is none")
    nonzero_standard_deviation: float = meaning("of these")
    largest: float = meaning("the largest magnitude")
    divided_by: float = meaning("what the weights were divided by before they were counted; 1 unless normalised")
    counts: list[int] = meaning("non-zero weights in each bin")


@dataclass(frozen=True, kw_only=True)
class HistogramResult(Document):
    """`robcomp histogram`: the distribution of the weights of runs; exact zeros are in no bin."""

    SCHEMA: ClassVar[str] = "robcomp-histogram/1"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    normalised: bool = meaning("whether each run's weights were divided by their largest magnitude")
    layers: str = meaning("the pattern that the layers' names match; empty for all")
    edges: list[float] = meaning(
        "edges of the bins, of equal width from minus to plus the largest magnitude of all runs (1 where normalised); "
        "a bin holds its lower edge, the last one its upper edge too"
    )
    runs: list[WeightCounts] = meaning("run by run")


@dataclass(frozen=True, kw_only=True)
class StageEpochs:
    """A stage in a log."""

    name: str = meaning("name of the stage")
    epochs: int = meaning("its finished epochs")


@dataclass(frozen=True, kw_only=True)
class EpochLosses:
    """One epoch; null where the log has no such figure."""

    stage: str = meaning("name of the stage")
    epoch: int = meaning("its number in the stage, from 1")
    loss: float | None = meaning("mean training loss")
    adversarial_loss: float | None = meaning("mean cross-entropy on the adversarial images of the training batches")
    clean: float | None = meaning("accuracy on the training batches")
    robust: float | None = meaning("accuracy on their adversarial images")
    val_clean: float | None = meaning("accuracy on held-out images")
    val_robust: float | None = meaning("accuracy on their adversarial images")
    lr: float | None = meaning("learning rate at the end of the epoch")


@dataclass(frozen=True, kw_only=True)
class RunLosses(NamedRun):
    """The course of a run."""

    stages: list[StageEpochs] = meaning("the stages in order")
    epochs: list[EpochLosses] = meaning("the epochs of all stages")


@dataclass(frozen=True, kw_only=True)
class LossesResult(Document):
    """`robcomp losses`: the adversarial loss over the epochs of all stages."""

    SCHEMA: ClassVar[str] = "robcomp-losses/1"

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    runs: list[RunLosses] = meaning("the runs that have adversarial losses")
    left_out: list[str] = meaning("labels of those that have none")


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much more often a is correct than b on the same images."""

    n: int = meaning("number of images")
    difference: float = meaning("mean of a minus mean of b, a fraction")
    level: float = meaning("level of the interval")
    low: float = meaning("its lower end (Newcombe, 1998, method 10)")
    high: float = meaning("its upper end")
    p_value: float = meaning("two-sided exact McNemar test")
    both: int = meaning("images that both classify correctly")
    only_a: int = meaning("images that a alone classifies correctly")
    only_b: int = meaning("images that b alone classifies correctly")
    neither: int = meaning("images that neither does")


@dataclass(frozen=True, kw_only=True)
class SizeShare:
    """A size."""

    bytes: float = meaning("in bytes; of a counted size its bits / 8")
    fraction: float = meaning("of the dense network")


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A side of a comparison."""

    path: str = meaning("the directory or file given")
    label: str = meaning("what was run, and where it lies")
    run: str = meaning("hash of its configuration")
    threat: Threat = meaning("the threat model of its figures")
    size: dict[str, SizeShare] = meaning("its `nominal` and `file` size")


@dataclass(frozen=True, kw_only=True)
class ComparedAccuracy:
    """One accuracy of both sides: the comparison, or the reason why there is none."""

    not_comparable: str | None = meaning("why the two figures mean different things", default=None)
    a: float | None = meaning("accuracy of a", default=None)
    b: float | None = meaning("accuracy of b", default=None)
    paired: PairedDifference | None = meaning("the difference a - b on the same images", default=None)
    conclusion: str | None = meaning("what the interval says, in words", default=None)


@dataclass(frozen=True, kw_only=True)
class CompareResult(Document):
    """`robcomp compare`: two finished runs, image by image."""

    SCHEMA: ClassVar[str] = "robcomp-compare/3"

    a: ComparedRun = meaning("the first run")
    b: ComparedRun = meaning("the second run")
    images: int = meaning("number of test images")
    checksum: str = meaning("digest of the stored data")
    accuracy: dict[str, ComparedAccuracy] = meaning("clean, each attack of both, worst_case")
    only_a: list[str] = meaning("attacks that only a met")
    only_b: list[str] = meaning("attacks that only b met")


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """What a table keeps of a finished run."""

    accuracy: dict[str, Proportion] = meaning("the table's accuracies, by their names in report.json")
    size: dict[str, SizeShare] = meaning("the table's sizes")
    seed: int = meaning("seed of the run")
    seconds: float = meaning("its time")
    finished: str = meaning("when it ended, ISO 8601 with time zone")
    train_epochs: int = meaning("epochs of all its stages")
    machine: Machine = meaning("what it was computed on")
    robcomp: str = meaning("version of robcomp that ran it")
    data: DataFacts = meaning("the images")
    threat: Threat = meaning("what it was trained against")
    doubt: str | None = meaning("what speaks against its figures under attack", default=None)


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """A point of a row."""

    label: str = meaning("label of the row")
    point: dict[str, Any] = meaning("the grid's settings at this point; empty for a row without a grid")
    overrides: list[str] = meaning("what `robcomp train` was given")
    run: str | None = meaning("the run directory, `<dataset>-<model>-<method>/<hash>`; null where the run failed")
    published: dict[str, float] = meaning("the paper's figures for the same point, in percent")
    result: TableRun | None = meaning("what the run came to", default=None)


@dataclass(frozen=True, kw_only=True)
class PublishedCurve:
    """A curve of the paper."""

    label: str = meaning("label of our row")
    key: str = meaning("the accuracy")
    points: list[tuple[float, float]] = meaning("[size as a fraction, percent], in order of size")


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim at a point; the quantity in points."""

    claim: str = meaning("the claim in words")
    metric: str = meaning("the accuracy that it is about")
    point: dict[str, Any] = meaning("the grid's settings at this point")
    pair: bool = meaning("whether it is about the difference of two rows")
    estimate: float | None = meaning("the measured quantity; null where there is none")
    low: float | None = meaning("lower end of its 95 % interval", default=None)
    high: float | None = meaning("upper end", default=None)
    p_value: float | None = meaning("of a difference: two-sided exact McNemar test", default=None)
    conclusion: str = meaning("whether the claim holds")


@dataclass(frozen=True, kw_only=True)
class TableResult(Document):
    """`robcomp table`: a paper's table rebuilt; page and figure are made from it."""

    SCHEMA: ClassVar[str] = "robcomp-table/3"

    name: str = meaning("name of the table")
    scale: str = meaning("how large its runs are")
    extra: list[str] = meaning("what the command line set for all runs")
    title: str = meaning("its title")
    source: str = meaning("the paper")
    note: str = meaning("what a reader must know of the scale")
    grid: list[str] = meaning("the settings of the grid")
    accuracy: list[str] = meaning("its accuracies, by their names in report.json")
    size: list[str] = meaning("its sizes: `nominal`, `coded`, `file`")
    x: str = meaning("the size on the figure's axis")
    definitions: dict[str, str] = meaning("what each size counts, in words")
    records: list[TableRecord] = meaning("the runs")
    published: list[PublishedCurve] = meaning("the paper's curves")
    comparisons: list[JudgedClaim] = meaning("the paper's claims, judged")
