"""report.json: every key with its meaning and unit.

docs/report.md lists the same keys, made from here by scripts/render_docs.py. Fractions are between 0 and 1, times in
seconds, eps is a fraction of the [0, 1] pixel range.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from robcomp.report.records import Document, meaning

DOUBT = " (!)"  # behind each figure under attack whose verdict has a flag

AUTOATTACK = {"apgd_ce": ("steps", 100), "apgd_t": ("steps", 100), "fab_t": ("steps", 100), "square": ("queries", 5000)}

Settings = dict[str, Any]  # of an attack: which keys there are is for the attack to say


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
class Proportion:
    """Of how many images something is true."""

    value: float = meaning("fraction of the images that are classified correctly")
    correct: int = meaning("how many images that is")
    images: int = meaning("how many images were evaluated")
    interval: tuple[float, float] = meaning(
        "95 % interval of the value (Wilson), `[low, high]`: what another draw of test images could give, not another "
        "training seed"
    )


@dataclass(frozen=True, kw_only=True)
class AttackAccuracy(Proportion):
    """What an attack left. An image that is wrong without an attack counts as wrong under every attack."""

    attack: Settings = meaning("the attack: its name, norm, eps and further settings")
    seconds: float | None = meaning("time of the attack", default=None)
    attacked: int | None = meaning("how many images the attack was run on", default=None)
    cumulative: bool = meaning(
        "true where the attack met only what those before it left, and the value is the worst case over all of them",
        default=False,
    )
    excluded: bool = meaning(
        "true where the attack takes no part in `worst_case`: another norm, no ball, or excluded by its settings",
        default=False,
    )
    median_distance: float | None = meaning(
        "of a minimum-norm attack (FAB, CW) run on all images: the median distance to the nearest misclassified point "
        "found, in its norm, over the images that are correct without an attack; null where more than half have none",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class WorstCase(Proportion):
    """The images that withstand every attack of one norm with at most this eps: their balls lie within its own."""

    norm: str = meaning("the norm")
    eps: float = meaning("the eps")
    attacks: list[str] = meaning("the attacks of this norm with at most this eps")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracies of one evaluation; `accuracy["pgd"]` is that under an attack, by its name in the suite."""

    clean: Proportion = meaning("on the unchanged test images")
    attacks: dict[str, AttackAccuracy] = meaning("under each attack of the suite, by its name")
    worst_case: Proportion = meaning(
        "an image counts only where it withstands every attack that is not excluded; where these have several eps, it "
        "is the worst case at the largest"
    )
    worst_cases: list[WorstCase] = meaning(
        "one for each norm and eps, where the attacks of a suite have several", default=list
    )
    only_class: int | None = meaning(
        "the number of the class, counted from 0, that the network answers for every unchanged test image, though they "
        "are of several; absent where its answers differ",
        default=None,
    )

    @property
    def tried(self) -> list[str]:
        """The names of the attacks of the worst case."""
        return [name for name, entry in self.attacks.items() if not entry.excluded]

    @property
    def autoattack(self) -> bool:
        """Whether AutoAttack's four attacks (standard version) are among them, unshortened, at the largest eps."""
        tried = [self.attacks[name].attack for name in self.tried]
        eps = max((attack["eps"] for attack in tried), default=0)
        at_eps = [attack for attack in tried if attack["eps"] == eps and attack.get("bn_mode", "eval") == "eval"]
        return all(
            any(found["name"] == name and found[key] >= least and found.get("targets", 9) >= 9 for found in at_eps)
            for name, (key, least) in AUTOATTACK.items()
        )

    def __getitem__(self, name: str) -> Proportion:
        return self.entries()[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries()

    def entries(self) -> dict[str, Proportion]:
        """All of them by name: clean, each attack, worst_case."""
        return {"clean": self.clean, **self.attacks, "worst_case": self.worst_case}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str = meaning("name of the check")
    flag: bool = meaning("whether it speaks against the figures")
    evidence: str = meaning("what was seen, in a sentence")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the figures under attack can be trusted."""

    trusted: bool | None = meaning(
        "no check raised a flag; null where none did and fewer than 20 images were looked at, or more than 5 of 100 "
        "were broken that the suite left"
    )
    images: int = meaning("how many images were looked at")
    checks: list[Check] = meaning("the checks")

    @property
    def flags(self) -> list[Check]:
        """The checks that speak against the figures."""
        return [check for check in self.checks if check.flag]


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """A later evaluation of a finished run."""

    finished: str = meaning("when it ended, ISO 8601 with time zone")
    overrides: list[str] = meaning("what its command line set")
    machine: Machine = meaning("what it was computed on")
    threat: Threat = meaning("the threat model of its figures")
    data: DataFacts = meaning("the images that it was made on")


@dataclass(frozen=True, kw_only=True)
class CountedSize:
    """A size that is counted from the weights."""

    definition: str = meaning("in words, what counts and what the fraction is of")
    bits: int = meaning("the size in bits")
    fraction: float = meaning("of the dense convolution and linear weights at 32 bits")

    @property
    def bytes(self) -> float:
        """The size in bytes."""
        return self.bits / 8


@dataclass(frozen=True, kw_only=True)
class FileSize:
    """A size that is read off the disk."""

    definition: str = meaning("in words, what counts and what the fraction is of")
    bytes: int = meaning("bytes of model.rcz; of the state as a float32 file for an architecture of one's own")
    dense_bytes: int = meaning("bytes of the dense network as a float32 file")
    fraction: float = meaning("`bytes` / `dense_bytes`")


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of the network by three definitions: what lies on the disk, then two that count less."""

    dense_weights: int = meaning("convolution and linear weights of the dense model; no biases, no batch normalisation")
    nonzero: int = meaning("stored non-zero weights, over all tensors that store a layer's weight")
    bits: int = meaning("nominal bits of one stored weight, 32 without quantisation")
    file: FileSize = meaning("real bytes of the compressed file `model.rcz`: positions, biases and header included")
    coded: CountedSize = meaning("non-zeros x bits and codebooks, as the published ATMC code counts; no positions")
    nominal: CountedSize = meaning("the papers' size: non-zeros x bits; no positions, no codebooks")

    def named(self) -> dict[str, CountedSize | FileSize]:
        """The three sizes by name, the real one first."""
        return {"file": self.file, "coded": self.coded, "nominal": self.nominal}


@dataclass(frozen=True, kw_only=True)
class TensorSize:
    """A tensor that stores a layer's weight, or a part of it."""

    name: str = meaning("`weight`, or a factor: `U`, `V`, `C` of W = U V + C")
    shape: list[int] = meaning("its shape")
    weights: int = meaning("its entries")
    nonzero: int = meaning("its non-zero entries")
    distinct: int = meaning("its distinct non-zero values")
    bytes: int | None = meaning("its bytes in model.rcz, the header apart", default=None)


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """A convolution or linear layer; of an architecture of one's own, any with a weight of two dimensions or more."""

    name: str = meaning("name of the layer")
    weights: int = meaning("weights of its dense form")
    nonzero: int = meaning("stored non-zeros of its tensors together")
    density: float = meaning("`nonzero` / `weights`; with factors it can exceed 1")
    rank: int | None = meaning("rank of a layer stored as W = U V of low rank (method=alr)", default=None)
    channels: list[int] | None = meaning(
        "[inputs that some non-zero weight reads, all inputs]; not of a layer stored as factors or in groups",
        default=None,
    )
    filters: list[int] | None = meaning(
        "[outputs that some non-zero weight feeds, all outputs]; not of a layer stored as factors", default=None
    )
    tensors: list[TensorSize] = meaning("the tensors that store its weight")


@dataclass(frozen=True, kw_only=True)
class Density:
    """How many weights are left, exact counts."""

    total: float = meaning("`size.nonzero` / `size.dense_weights`")
    channels: list[int] | None = meaning(
        "[input channels with a non-zero weight, all of them], over the convolutions together (DNR's \"% channel "
        'present"); absent where every layer is stored as factors',
        default=None,
    )
    layers: list[LayerSize] = meaning("layer by layer, in the network's order")


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """The operations of one layer."""

    name: str = meaning("name of the layer")
    dense: int = meaning("of its dense form")
    executed: int = meaning("as it is computed")
    nonzero: int = meaning("of these, with a non-zero weight")


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-accumulate operations of the convolutions and linear layers for one image."""

    definition: str = meaning("in words, what counts")
    dense: int = meaning("of the dense network")
    executed: int = meaning("as robcomp computes this network: low-rank layers as two products, zeros like any number")
    nonzero: int = meaning("those of the executed ones whose weight is not zero: for hardware that skips every zero")
    layers: list[LayerMacs] = meaning("layer by layer")


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
