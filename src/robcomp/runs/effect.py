"""Whether what was typed can change anything: an override that cannot is refused instead of being passed over.

One question is asked of every override, of whatever key: is there another value of it with which what is done would be
described otherwise? The description is that of `identity`, less what takes no part (`in_effect`). What does not answer
yes is compared with the command without it: at the value that it has anyway an override may stand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError
from robcomp.runs import identity
from robcomp.settings import grammar
from robcomp.settings.choices import GROUPS, choices
from robcomp.settings.compose import compose_node, to_config
from robcomp.settings.schema import Config
from robcomp.storage import describe
from robcomp.trainers.stage import SCHEDULES, Stage


@dataclass(frozen=True)
class Use:
    """What a command takes of a configuration. `describe`: that, as JSON; `free`: keys that say where, on what and how
    fast, which change no figure and are never refused; `why`: why other keys change nothing, in words."""

    what: str
    describe: Callable[[Config], Any]
    free: tuple[str, ...]
    why: Callable[[str, Config], str]


@dataclass(frozen=True)
class Job:
    """One composition: `typed` are the overrides that are asked about; `compose` makes the whole of them and of what
    the job has beside them (a table's row, a finished run's own settings)."""

    typed: list[str]
    compose: Callable[[Sequence[str]], DictConfig] = compose_node

    @cached_property
    def node(self) -> DictConfig:
        return self.compose(self.typed)


def check(jobs: Sequence[Job], use: Use) -> None:
    """UserError for the first override that changes nothing in any of the jobs, which have the same keys in one order.

    An override that cannot be asked about without an error (it alone makes the configuration whole) counts as used.
    """
    as_typed = [use.describe(to_config(job.node)) for job in jobs]
    for position in range(len(jobs[0].typed) if jobs else 0):
        if not any(_counts(job, position, use, now) for job, now in zip(jobs, as_typed, strict=True)):
            first, several = jobs[0], len({job.typed[position] for job in jobs}) > 1
            key = _parsed(first.typed[position]).key_or_group
            where = "here" if len(jobs) == 1 else f"in any of the {len(jobs)} {use.what}s"
            raise UserError(
                f"{f'{key}=' if several else first.typed[position]} changes nothing {where}: "
                f"{use.why(key, to_config(first.node))}; leave it out."
            )


def check_training(overrides: Sequence[str]) -> None:
    """`check` of one run that is to be trained, and `Config.check_training`."""
    job = Job(list(overrides))
    to_config(job.node).check_training(overrides)
    check([job], TRAINING)


def counting(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run without those that change nothing in it: a table's row has settings for other rows too."""
    job = Job(list(overrides))
    now = TRAINING.describe(to_config(job.node))
    return [typed for position, typed in enumerate(job.typed) if _counts(job, position, TRAINING, now)]


def _counts(job: Job, position: int, use: Use, now: Any) -> bool:
    """Whether the override at `position` can change `now`, what the job comes to as it is typed."""
    override = _parsed(job.typed[position])
    key = override.key_or_group
    if any(key == free or key.startswith(f"{free}.") for free in use.free):
        return True
    values = () if key in GROUPS or override.is_delete() else _perturbed(job.node, key)
    if any(found != now for found in _described(values, use)):
        return True
    without = [*job.typed[:position], *job.typed[position + 1 :]]
    try:
        node = job.compose(without)
        if _settled(node) == _settled(job.node) or use.describe(to_config(node)) != now:
            return True
    except UserError:
        return True
    others = choices(key) if key in GROUPS and not override.is_delete() else []
    return any(found != now for found in _described(_chosen(job, position, others), use))


def _described(nodes: Iterable[DictConfig], use: Use) -> Iterator[Any]:
    """What each of the nodes comes to, without those that are no configurations."""
    for node in nodes:
        try:
            yield use.describe(to_config(node))
        except UserError:
            continue


def _chosen(job: Job, position: int, others: Sequence[str]) -> Iterator[DictConfig]:
    """The job under each of the other choices of the group that is typed at `position`."""
    key = _parsed(job.typed[position]).key_or_group
    for other in others:
        typed = [*job.typed]
        typed[position] = f"{key}={other}"
        try:
            yield job.compose(typed)
        except UserError:
            continue


def _perturbed(node: DictConfig, key: str) -> Iterator[DictConfig]:
    """Copies of `node` with another value at `key`, and at each key below it."""
    value = OmegaConf.select(node, key)
    if isinstance(value, DictConfig):
        for inner in (name for name in value if isinstance(name, str)):
            yield from _perturbed(node, f"{key}.{inner}")
        return
    for other in _others(list(value) if isinstance(value, ListConfig) else value):
        changed = deepcopy(node)
        try:
            OmegaConf.update(changed, key, other, merge=False)
        except OmegaConfBaseException:
            continue
        yield changed


def _others(value: object) -> list[Any]:
    """Other values than this one that a key of its type may have."""
    if value is None:
        return [1, 0.5, True, [1], "x"]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 2 * value, value // 2]
    if isinstance(value, float):
        return [value / 2, 2 * value, (1 + value) / 2, value - 1]
    if isinstance(value, list):
        scaled = [2 * item for item in value if isinstance(item, int | float)]
        return [[], [1], [0.5], *([scaled] if scaled else []), *([value[:-1]] if value else [])]
    try:
        return [str(Fraction(str(value)) / 2)] if isinstance(value, str) else []  # "8/255"
    except ValueError:
        return []


def _settled(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def _parsed(override: str) -> Override:
    return grammar.parse([override])[0]


def _trained(config: Config) -> list[Any]:
    training = identity.training(config)
    if config.dataset.val == 0 and config.selection == "last":
        del training["validation"]  # on no image
    return [
        _images(config),
        describe(config.model),
        config.method.name,
        describe([replace(stage, schedule=stage.schedule.in_effect()) for stage in config.stages()]),
        training,
        describe(config.threat),
        *_evaluated(config),
    ]


def _images(config: Config) -> dict[str, Any]:
    """The data set's settings that take part in what it gives."""
    used = describe(config.dataset)
    if not config.dataset.path:
        del used["test_fraction"]
    if not config.dataset.pad and not config.dataset.rotate:
        del used["pad_mode"]
    return used


def _evaluated(config: Config) -> list[Any]:
    attacks, *how = config.attack.identity()
    lean = [[name, {k: v for k, v in settings.items() if k != "relative_step"}] for name, settings in attacks]
    return [lean, *how, config.seed, config.dataset.test_subset]  # a relative step counts by the step that it comes to


def _evaluated_from_elsewhere(config: Config) -> list[Any]:
    data = config.dataset
    images = [data.name, list(data.shape), data.classes, data.path, data.path and data.test_fraction]
    return [images, describe(config.model), *_evaluated(config)]


def _evaluated_of_ones_own(config: Config) -> list[Any]:
    return [_evaluated_from_elsewhere(replace(config, model=None)), config.model.weights]


def _analysed(config: Config) -> list[Any]:
    attacks, excluded, individual, _, batch_size = config.attack.identity()  # an analysis has no verdict
    return [attacks, excluded, individual, batch_size, config.seed, config.dataset.test_subset]


def _why_of_training(key: str, config: Config) -> str:
    method = f"method={config.method.name}"
    top, *rest = key.split(".")
    if top == "schedule" and rest:
        stages = config.stages()
        used = sorted({stage.schedule_name for stage in stages if stage.schedule_name in config.schedule})
        names = ", ".join(stage.name for stage in stages)
        if rest[0] not in {*used, *(stage.name for stage in stages)}:
            under = " and ".join(f"schedule.{name}" for name in used)
            return f"{method} has the stage{'s' if len(stages) > 1 else ''} {names}, under {under}"
        if rest[1:] == ["milestones"] and (apart := _apart(stages, rest[0], config)):
            own = " and ".join(f"schedule.{stage}.milestones" for stage in apart)
            return f"the learning rate of {' and '.join(apart)} falls as the method says, unless {own} say otherwise"
        how = next(s.schedule for s in stages if rest[0] in (s.name, s.schedule_name))
        return f"with optimizer={how.optimizer}, decay={how.decay} and epochs={how.epochs} it plays no part"
    if top == "attack":
        return _why_of_attacks(key, config)
    if key == "ratio" and hasattr(config.method, "ratio"):
        return f"it is the default of method.ratio, which is {config.method.ratio:g} here"
    if key == "method.ratio" and getattr(config.method, "ratios", None):
        return "method.ratios says what is kept of each layer"
    if top == "dataset":
        return "no other setting of the data set calls for it"
    objective = "" if config.objective.name == "method" else f" with objective={config.objective.name}"
    return f"{method}{objective} has no use for it"


def _apart(stages: Sequence[Stage], name: str, config: Config) -> list[str]:
    """The stages under the shared `schedule.NAME` that have other milestones."""
    if name not in SCHEDULES:
        return []
    shared = config.recipe_context().schedule(name, name).milestones
    return [stage.name for stage in stages if stage.schedule_name == name and stage.schedule.milestones != shared]


def _why_of_evaluation(key: str, config: Config) -> str:
    if key.split(".")[0] in ("attack", "threat"):
        return _why_of_attacks(key, config)
    return (
        "the network is taken as it is, and only attack=, threat.*, dataset.test_subset= and seed= say how it "
        "is attacked"
    )


def _why_of_attacks(key: str, config: Config) -> str:
    if key == "attack.name":
        return "it is a name alone"
    if key == "attack.verdict":
        return "an analysis has no verdict"
    return f"no attack of the suite {config.attack.name} refers to it"


PLACE = ("data_dir", "device", "out", "fresh", "hydra.searchpath")
TRAINING = Use("run", _trained, (*PLACE, "training.precision", "training.graphs"), _why_of_training)
EVALUATION = Use("run", _evaluated, (*PLACE, "dataset.path"), _why_of_evaluation)
EXTERNAL = Use("evaluation", _evaluated_from_elsewhere, PLACE, _why_of_evaluation)
OWN_MODULE = Use("evaluation", _evaluated_of_ones_own, PLACE, _why_of_evaluation)
ANALYSIS = Use("run", _analysed, (*PLACE, "dataset.path"), _why_of_evaluation)
