"""What decides a figure is part of the name under which it is kept: nothing stale is taken for a new result."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny import RUN, images, run, two_layers, typed
from torch import Tensor

from robcomp import storage
from robcomp.attacks.apgd import APGD
from robcomp.attacks.base import ATTACKS, Attack, MinimumNorm
from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.data import Dataset, DatasetConfig
from robcomp.errors import UserError
from robcomp.evaluation import evaluator as evaluation
from robcomp.evaluation import verdict
from robcomp.evaluation.accuracy import evaluate_suite
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.suite import SuiteConfig
from robcomp.models import MODELS
from robcomp.models.base import ModelConfig
from robcomp.models.parameterisation import Parameterisation
from robcomp.report.schema import Report
from robcomp.runs import evaluate, identity, train
from robcomp.runs.identity import run_directory
from robcomp.runs.load import load
from robcomp.settings.choices import choices
from robcomp.settings.compose import Config, compose_config
from robcomp.settings.schema import InnerAttackConfig, ThreatConfig, TrainingConfig
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.layer_budgets import LayerBudgets
from robcomp.trainers.compressors.sparsity import MaskCompressor
from robcomp.trainers.objectives import OBJECTIVES, Objective
from robcomp.trainers.stage import Schedule, Stage

EVERY = np.ones(24, bool)
PLAIN = {"seed": 0, "batch_size": 10}


def entry(name: str = "a", attack: PGD | None = None, candidates: np.ndarray = EVERY, **settings: Any) -> list[object]:
    evaluator = Evaluator(two_layers(), images(24, 5), **{**PLAIN, **settings})
    return evaluator.entry(name, attack or PGD(0.1), candidates, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "b"},
        {"attack": PGD(0.2)},
        {"attack": PGD(0.1, loss="margin")},
        {"candidates": np.arange(24) > 0},
        {"seed": 1},
        {"batch_size": 11},
    ],
    ids=str,
)
def test_a_ledger_keeps_apart_what_differs(changed: dict[str, Any]) -> None:
    assert entry() == entry()
    assert entry(**changed) != entry()


@pytest.mark.parametrize("owner", [PGD, evaluation])
def test_a_ledger_keeps_revisions_apart(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    before = entry()
    monkeypatch.setattr(owner, "revision" if owner is PGD else "REVISION", 99)
    assert entry() != before


def named(*overrides: str, checksum: str = "0") -> list[Any]:
    few = images(2, 0)
    config = compose_config([*RUN, *overrides])
    return identity.evaluation(config, Dataset("tiny", ("a",), few, few, few, checksum, True, ""))


CHANGES = [
    "seed=1",
    "dataset.test_subset=19",
    "attack.individual=false",
    "attack.verdict=30",
    "attack.batch_size=9",
    "attack.attacks.pgd.steps=3",
    "+attack.attacks.pgd.excluded=true",
    "threat.eps=0.11",
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_an_evaluation_is_named_by_all_that_decides_it(change: str) -> None:
    assert named() == named()
    assert named(change) != named()
    assert named(checksum="1") != named()


@pytest.mark.parametrize("owner", [PGD, evaluation, verdict], ids=["attack", "evaluation", "verdict"])
def test_revisions_name_evaluations_and_runs(monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    def names() -> tuple[list[Any], Path]:
        config: Config = compose_config([*RUN, "method=nat"])
        return named(), identity.run_directory(config)

    before = names()
    monkeypatch.setattr(owner, "revision" if owner is PGD else "REVISION", 99)
    assert all(a != b for a, b in zip(before, names(), strict=True))


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_another_network_in_the_same_folder_is_another_evaluation() -> None:
    first, second = run(["method=nat"]), run(["method=nat", "seed=1"])
    assert main(["evaluate", f"run={first}", "attack=atmc"]) == 0
    (first / "model.rcz").write_bytes((second / "model.rcz").read_bytes())
    assert main(["evaluate", f"run={first}", "attack=atmc"]) == 0
    assert len(list(first.glob("evaluation-*.json"))) == 2


def left_over(path: Path, network: Path, dataset: Dataset, config: Config) -> None:
    """A ledger of a stopped evaluation that claims that nothing withstood anything."""
    ledger = evaluate._ledger(path, storage.file_digest(network), dataset, config)
    with Evaluator(two_layers(), dataset.test, config.seed, config.attack.batch_size) as evaluator:
        for name, attack in config.attack.build().items():
            candidates = np.load(network.with_name("outcomes.npz"))["clean"]
            ledger.note(
                evaluator.entry(name, attack, candidates, False), {"correct": candidates & False}, candidates.sum(), 1.0
            )


@pytest.mark.usefixtures("sandbox", "no_curves")
@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_starts_from_an_empty_ledger(monkeypatch: pytest.MonkeyPatch, fresh: bool) -> None:
    folder = run(["method=nat"])
    settings = ["attack=atmc", "attack.verdict=0", "threat.eps=0.02"]
    found = load(folder, settings)
    names: list[Path] = []
    ledger = evaluate._ledger
    monkeypatch.setattr(evaluate, "_ledger", lambda path, *rest: names.append(path) or ledger(path, *rest))
    assert main(["evaluate", f"run={folder}", *settings]) == 0
    (page,) = folder.glob("evaluation-*.json")
    honest = Report.read(page).accuracy.worst_case.correct
    assert honest > 0
    page.unlink()
    left_over(names[0], folder / "model.rcz", found.dataset, found.config)
    assert main(["evaluate", f"run={folder}", *settings, f"fresh={str(fresh).lower()}"]) == 0
    assert Report.read(page).accuracy.worst_case.correct == (honest if fresh else 0)


def test_each_batch_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []

    def noted(self: PGD, x: Tensor, random: torch.Generator) -> Tensor:
        drawn.append(torch.rand(4, generator=random))
        return x

    monkeypatch.setattr(PGD, "start", noted)
    with Evaluator(two_layers(), images(24, 5), 0, 8) as evaluator:
        for name in ("a", "b"):
            evaluator.under(name, PGD(0.1, steps=1), np.ones(24, bool))
    assert len({tuple(part.tolist()) for part in drawn}) == 6


class Seen:
    """Stands in for the verdict's examination and notes what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, e: Evaluator, suite: SuiteConfig, outcomes: dict[str, np.ndarray]) -> None:
        self.calls.append((suite, {name: found.copy() for name, found in outcomes.items()}))


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_the_verdict_is_told_the_suite_and_what_withstood_its_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    monkeypatch.setattr(verdict, "examine", seen)
    suite = ["attack.verdict=20", "threat.eps=0.4", "+attack.attacks.far={attack: fgsm, eps: 1.0, excluded: true}"]
    folder = run(["method=nat", *suite])
    ((told, found),) = seen.calls
    outcomes = np.load(folder / "outcomes.npz")
    assert (set(told.counted()), told.verdict) == ({"fgsm", "pgd"}, 20)
    assert all(np.array_equal(found[name], outcomes[name]) for name in ("fgsm", "pgd", "far"))
    assert found["worst_case"].sum() < found["clean"].sum()


def budget(*eps: float) -> tuple[float, str]:
    """The eps and norm of the verdict's attacks on a suite of PGD at these eps, and of one in L2."""
    attacks = {f"pgd_{place}": {"attack": "pgd", "eps": value} for place, value in enumerate(eps)}
    suite = SuiteConfig(attacks={**attacks, "l2": {"attack": "pgd", "eps": 3.0, "norm": "L2"}})
    attack = verdict.planned(suite, 64)["verdict.pgd"]
    return attack.threat.eps, attack.norm


def test_the_budget_of_the_verdict_is_the_suites_largest() -> None:
    assert budget(0.1, 0.3, 0.2) == (0.3, "Linf")


def test_an_attack_in_another_norm_is_excluded() -> None:
    attacks: dict[str, Any] = {"pgd": {"eps": 0.1}, "l2": {"attack": "pgd", "eps": 3, "norm": "L2"}}
    assert SuiteConfig(attacks=attacks).excluded() == {"l2"}
    assert SuiteConfig(attacks=dict(reversed(attacks.items()))).excluded() == {"pgd"}
    assert SuiteConfig(attacks={"wrm": {"gamma": 1.0, "steps": 2, "norm": "L2"}, **attacks}).excluded() == {"wrm", "l2"}


@pytest.mark.parametrize("individual", [True, False])
def test_whether_an_attack_counts_in_a_norm_of_its_own_names_the_suite(individual: bool) -> None:
    far = {"attack": "pgd", "eps": 3, "norm": "L2"}

    def named(**mark: bool) -> list[Any]:
        attacks = {"pgd": {"eps": 0.1}, "l2": far, "l2b": {**far, **mark}}
        return SuiteConfig(individual=individual, attacks=attacks).identity()

    assert named() != named(excluded=True)
    assert named() == named(excluded=False)


def test_excluded_attacks_tell_distances_in_a_cumulative_suite() -> None:
    config = SuiteConfig(
        individual=False,
        verdict=0,
        attacks={
            "pgd": {"eps": 0.1},
            "cw": {"eps": 0.5, "steps": 3, "searches": 2},
            "fab": {"eps": 0.1, "steps": 2},
        },
    )
    with Evaluator(two_layers(), images(24, 5), 0) as evaluator:
        records, outcomes = evaluate_suite(evaluator, config)
    assert "cw.distance" in outcomes
    assert "fab.distance" not in outcomes
    assert records.attacks["cw"].excluded


# What may be part of a cache key: these classes with all that derive from them, and these alone. The abstract ones are
# never built, so they need no kind.
FAMILIES = (Compressor, Objective, Parameterisation, Attack, ModelConfig)
SINGLE = (Schedule, Stage, LayerBudgets, DatasetConfig, ThreatConfig, TrainingConfig, InnerAttackConfig)
ABSTRACT = {MaskCompressor, Objective, Parameterisation, Attack, MinimumNorm, APGD, ModelConfig}


def family(base: type) -> list[type]:
    """`base` and every class of robcomp that derives from it, but for the abstract ones."""

    def below(cls: type) -> Iterator[type]:
        yield cls
        for child in cls.__subclasses__():
            yield from below(child)

    return [cls for cls in dict.fromkeys(below(base)) if cls.__module__.startswith("robcomp.") and cls not in ABSTRACT]


def described(value: Any) -> Iterator[type]:
    """The dataclasses that `storage.describe` meets in `value`."""
    if is_dataclass(value):
        yield type(value)
        value = [getattr(value, f.name) for f in fields(value) if f.init and f.compare]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []:
        yield from described(item)


@pytest.mark.parametrize("classes", [*map(family, FAMILIES), SINGLE], ids=[*(c.__name__ for c in FAMILIES), "others"])
def test_every_class_of_a_cache_key_has_a_kind_of_its_own(classes: list[type]) -> None:
    assert len(classes) > 3
    for cls in classes:
        assert "__dataclass_params__" in vars(cls), f"{cls.__name__} is no dataclass: a key would lack its fields"
        assert isinstance(vars(cls).get("kind"), str), f"{cls.__name__} has no kind of its own"
    kinds = [cls.kind for cls in classes]
    assert len(set(kinds)) == len(kinds), sorted(kinds)


def test_abstract_classes_are_never_built() -> None:
    for registry in (ATTACKS, MODELS):
        assert ABSTRACT.isdisjoint(cls for _, cls in registry.items())
        assert all(cls.kind == name for name, cls in registry.items())
    built = {type(make(PGD(0.1), 0.5)) for make in OBJECTIVES.values()}
    for method in choices("method"):
        config = compose_config([f"method={method}"])
        built |= set(described(config.stages()))
    assert ABSTRACT.isdisjoint(built)


@pytest.mark.parametrize("method", choices("method"))
def test_a_cache_key_is_made_of_the_classes_above_alone(method: str) -> None:
    config = compose_config([f"method={method}"])
    parts = [config.stages(), config.dataset, config.model, config.threat, config.training, config.inner_attack()]
    assert set(described(parts)) <= {*SINGLE, *(cls for base in FAMILIES for cls in family(base))}


@dataclass
class Former:
    """A class of a cache key, before it was renamed with one of its fields."""

    kind: ClassVar[str] = "same"

    ratio: float = 0.5
    parts: list[Any] = field(default_factory=list)


@dataclass
class Latter:
    """`Former` by another name."""

    kind: ClassVar[str] = "same"

    share: float = field(default=0.5, metadata={"described": "ratio"})
    parts: list[Any] = field(default_factory=list)
    message: str = field(default="", compare=False)
    cache: int = field(default=0, init=False)


@dataclass
class Grown(Former):
    """`Former` with a field that came later."""

    kind: ClassVar[str] = "same"

    stem: str = field(default="plain", metadata={"added": True})


@dataclass
class Heir(Former):
    """Has its parent's kind alone."""


def test_a_renamed_class_or_field_is_described_as_before() -> None:
    assert storage.describe(Former(0.1)) == {"kind": "same", "revision": 1, "ratio": 0.1, "parts": []}
    assert storage.describe(Latter(0.1, message="for people")) == storage.describe(Former(0.1))
    assert storage.describe(Latter(0.2)) != storage.describe(Former(0.1))


def test_a_field_that_came_later_is_described_where_it_is_not_its_default() -> None:
    assert storage.describe(Grown(0.1)) == storage.describe(Former(0.1))
    assert storage.describe(Grown(0.1, stem="other")) == storage.describe(Former(0.1)) | {"stem": "other"}


def test_what_the_model_group_got_later_names_runs_only_where_it_is_set(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    plain = ["dataset=tiny_imagenet", f"model.weights={tmp_path / 'net.pt'}"]
    names = [
        identity.run_directory(compose_config([*plain, *change]))
        for change in (
            [],
            ["model.stem=cifar"],
            ["model.new_head=false"],
            ["model.stem=imagenet"],
            ["model.new_head=true"],
        )
    ]
    assert names[0] == names[1] == names[2]
    assert len(set(names)) == 3


def test_a_kind_and_a_revision_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("kind", "other"), ("revision", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(Latter, name, value, raising=False)
            assert storage.describe(Latter()) == storage.describe(Former()) | {name: value}


def test_a_class_without_a_kind_of_its_own_is_refused() -> None:
    @dataclass
    class Nameless:
        ratio: float = 0.5

    for value in (Nameless(), Heir(), [Heir()], {"a": Heir()}, Former(parts=[Heir()])):
        with pytest.raises(TypeError, match=r"(Nameless|Heir) names results and has no kind of its own"):
            storage.describe(value)


def test_lists_and_mappings_are_described_to_the_bottom() -> None:
    inner = storage.describe(Former())
    assert storage.describe({"a": [Former(), (1, {2: Latter()})], "b": None}) == {
        "a": [inner, [1, {"2": inner}]],
        "b": None,
    }
    assert storage.describe(Former(parts=[[Latter()], {"x": 1.5}])) == inner | {"parts": [[inner], {"x": 1.5}]}


KEYS = {
    "admm": "9fc00694583d",
    "admm_oneshot": "3763ba901ab8",
    "al0": "a1c0cd06d878",
    "alr": "15ac82819e4a",
    "ap": "c25e4d2dbbf1",
    "atmc": "4d938d103bfc",
    "da": "d0f8944ac869",
    "dnr": "bbe88ccaec07",
    "dnr_c": "b28f642a97a9",
    "l1": "d7875fe2d6f7",
    "lottery": "69e3cf5b78f3",
    "nap": "3be3430172c5",
    "nat": "606d88c3cf26",
    "prune_first": "a1a93fb6dffe",
    "snip": "b587a24b249d",
    "sparse_momentum": "103ee8489edc",
}


def test_the_keys_are_of_methods_that_there_are() -> None:
    assert set(KEYS) <= set(choices("method"))


@pytest.mark.parametrize(("method", "key"), KEYS.items())
def test_no_renaming_orphans_the_stage_cache(method: str, key: str) -> None:
    """A change here means that every cached stage of the method is trained anew.

    Where that is meant (an algorithm or a default has changed), raise a revision on purpose and write the new key down;
    where only something was renamed, put the name back: by `kind`, or by the field's metadata `described`.
    """
    config = compose_config([f"method={method}", "dataset=cifar10", "model=resnet18", "device=cpu"])
    stage = identity.stage(config, identity.origin(config), config.stages(), checksum="0", precision="float32")
    assert storage.digest(stage) == key


@pytest.mark.usefixtures("sandbox", "no_curves")
def test_stages_of_an_earlier_naming_are_told_of_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        assert main(["train", *typed("al0"), "fresh=true"]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "earlier version" not in said()
    cache = Path("outputs/stages")
    present = [*cache.glob("*/stage.json")]
    assert len(present) == 2
    assert "earlier version" not in said()  # nor of the stages that are there now
    for name in ("a", "b", "c"):
        storage.write_json(cache / name / "stage.json", {"data": "0"} | ({"naming": 1} if name == "c" else {}))
    assert "earlier version" not in said()  # this process has looked already
    train._looked_at.clear()
    text = said()
    sentence = (
        "outputs/stages contains stages written by an earlier version of robcomp (3), which are no longer used and may "
        "be deleted."
    )
    assert text.count(sentence) == text.count("earlier version") == 1
    assert sorted(cache.glob("?/*")) == [cache / name / "stage.json" for name in ("a", "b", "c")]


@pytest.mark.parametrize("recipe", choices("recipe"))
def test_every_recipe_has_a_run_directory(recipe: str) -> None:
    """Its identity is JSON, also where a stage has milestones of its own."""
    folder = run_directory(compose_config([f"recipe={recipe}", "training.precision=float32"]))
    assert re.fullmatch(r"[0-9a-f]{12}", folder.name)


def test_milestones_of_a_stages_own_are_named_by_its_key() -> None:
    own = ["method=admm", "schedule.retrain.decay=milestones", "schedule.retrain.milestones=[5]"]
    other = compose_config([*own[:2], "schedule.retrain.milestones=[6]"])
    assert run_directory(compose_config(own)) != run_directory(other)
    outside = compose_config([*own[:2], "schedule.retrain.milestones=[500]"])
    assert list(outside.misplaced()) == ["schedule.retrain"]
    with pytest.raises(UserError, match=r"milestones of schedule\.retrain lie outside"):
        outside.check_training([*own[:2], "schedule.retrain.milestones=[500]"])
