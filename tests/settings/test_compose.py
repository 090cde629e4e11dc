"""Configurations: what composes, what it comes to, and the one sentence for each that does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
import whole
from omegaconf import OmegaConf

from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.runs.identity import run_directory
from robcomp.settings.choices import choices
from robcomp.settings.compose import compose_config, compose_node
from robcomp.units import fraction

pytestmark = pytest.mark.usefixtures("sandbox")


OWN = {"folder": ["dataset.path=folder"]}  # which asks for a folder of images


@pytest.mark.slow
@pytest.mark.parametrize("method", choices("method"))
@pytest.mark.parametrize("dataset", choices("dataset"))
def test_every_combination_of_choices_composes(dataset: str, method: str) -> None:
    """Each data set with each method, and in turn with each model; all three in `make test-combinations`."""
    models = choices("model")
    turn = choices("dataset").index(dataset) + choices("method").index(method)
    for model in models if whole.PRODUCT else [models[turn % len(models)]]:
        config = compose_config([f"dataset={dataset}", f"method={method}", f"model={model}", *OWN.get(dataset, [])])
        assert (config.dataset.name, config.method.name, config.model.name) == (dataset, method, model)
        for stage in config.method.stages(config.recipe_context()):
            assert stage.schedule.epochs > 0


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        (["dataset=cifar10", "model=resnet18"], 0.05),
        (["dataset=cifar10", "model=lenet"], 0.01),
        (["dataset=cifar10", "model=lenet", "training.lr_scale=1"], 0.05),
        (["dataset=mnist"], 0.05),  # the rates suit LeNet
        (["dataset=mnist", "schedule.dense.lr=0.1", "training.lr_scale=0.5"], 0.05),
        (["dataset=folder", "dataset.path=folder", "model=lenet"], 1e-3),
    ],
)
def test_a_network_without_batch_norm_learns_slower_where_the_rates_are_not_for_it(
    overrides: list[str], rate: float
) -> None:
    config = compose_config(overrides)
    assert config.method.stages(config.recipe_context())[0].schedule.lr == pytest.approx(rate)


OWN_EPS = {"atmc_panel", "dnr", "iccv", "iccv_cifar", "thesis_table"}


@pytest.mark.parametrize("attack", sorted({*choices("attack")} - OWN_EPS))
def test_every_suite_builds_at_the_threat_models_eps(attack: str) -> None:
    config = compose_config([f"attack={attack}", "threat.eps=3/255", "threat.norm=L2"]).attack
    within = {name: entry for name, entry in config.build().items() if name not in config.excluded()}
    assert {entry.eps for entry in within.values()} == {3 / 255}
    assert {entry.norm for entry in within.values()} == {"L2"}


def test_suites_of_published_settings() -> None:
    """As papers and codes print them: eps, steps and step sizes in grey levels (DNR's step: 0.01 of the range)."""
    suites = {name: compose_config([f"attack={name}"]).attack for name in ("atmc_panel", "dnr", "iccv", "iccv_cifar")}
    built = {name: suite.build() for name, suite in suites.items()}
    grey = {
        (name, key): (255 * attack.eps, attack.steps, 255 * attack.step_size, attack.random_start)
        for name, suite in built.items()
        for key, attack in suite.items()
        if isinstance(attack, PGD)
    }
    assert grey == {
        ("atmc_panel", "pgd_2"): (pytest.approx(2), 7, pytest.approx(2.5 / 7), False),
        ("atmc_panel", "pgd_8"): (pytest.approx(8), 7, pytest.approx(10 / 7), False),
        ("dnr", "pgd"): (pytest.approx(8), 7, pytest.approx(2.55), True),
        ("iccv", "pgd"): (pytest.approx(76.5), 40, pytest.approx(2.55), True),
        ("iccv_cifar", "pgd"): (pytest.approx(8), 10, pytest.approx(2), True),
    }
    assert suites["atmc_panel"].excluded() == {"wrm"}
    assert (built["atmc_panel"]["wrm"].gamma, built["atmc_panel"]["wrm"].steps) == (1.3, 7)
    assert 255 * built["atmc_panel"]["fgsm_4"].eps == pytest.approx(4)


STEPS = {"cifar10": 7, "cifar100": 7, "digits": 7, "folder": 10, "mnist": 16, "svhn": 16, "tiny_imagenet": 7}


@pytest.mark.parametrize("dataset", choices("dataset"))
def test_the_suite_of_the_atmc_figures_takes_the_published_steps_however_training_attacks(dataset: str) -> None:
    for steps in ([], ["training.attack.steps=3"]):
        config = compose_config([f"dataset={dataset}", "attack=atmc", *steps, *OWN.get(dataset, [])])
        assert config.attack.build()["pgd"].steps == STEPS[dataset]
        assert not steps or config.inner_attack().steps == 3


def test_the_suites_of_autoattack_and_the_thesis() -> None:
    standard = compose_config(["attack=autoattack"]).attack
    assert not standard.individual
    attacks = standard.build()
    assert list(attacks) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert (attacks["apgd_ce"].steps, attacks["apgd_t"].steps, attacks["fab_t"].steps) == (100, 100, 100)
    assert (attacks["apgd_t"].targets, attacks["fab_t"].targets, attacks["square"].queries) == (9, 9, 5000)
    assert {attack.restarts for attack in attacks.values()} == {1}
    thesis = compose_config(["attack=thesis"]).attack.build()
    assert {*thesis} == {"pgd_100", "cw", "apgd_ce", "apgd_dlr", "fab", "square"}
    assert (thesis["fab"].restarts, thesis["fab"].steps, thesis["square"].queries) == (5, 100, 5000)


def test_the_suite_of_the_thesis_table_is_a_cascade_in_its_columns_order() -> None:
    table = compose_config(["attack=thesis_table", "threat.eps=0.1", "threat.norm=L2"]).attack
    assert list(table.order()) == ["pgd_100", "cw", "apgd_ce", "apgd_dlr", "fab", "square"]
    assert {(attack.norm, attack.eps) for attack in table.build().values()} == {("Linf", 8 / 255)}
    assert (table.excluded(), table.on_survivors()) == ({"pgd_100", "cw"}, {"apgd_dlr", "fab", "square"})


def test_the_strong_attacks_of_quick_meet_what_the_cheap_ones_left() -> None:
    quick = compose_config([]).attack
    assert list(quick.order()) == ["fgsm", "pgd", "margin", "apgd_t", "square"]
    assert quick.on_survivors() == {"apgd_t", "square"}
    assert not quick.excluded()


def test_the_defaults() -> None:
    config = compose_config([])
    assert (config.dataset.name, config.model.name, config.method.name) == ("digits", "lenet", "atmc")
    assert config.method.ratio == config.ratio
    assert config.out == "outputs"
    assert not config.fresh


def test_a_data_set_brings_its_model_and_defaults_and_the_command_line_wins() -> None:
    assert compose_config(["dataset=cifar10"]).model.name == "resnet34"
    chosen = compose_config(["model=resnet18", "dataset=cifar10", "ratio=0.5", "training.attack.steps=3"])
    assert (chosen.model.name, chosen.method.ratio, chosen.inner_attack().steps) == ("resnet18", 0.5, 3)
    assert compose_config(["dataset=cifar10", "method.ratio=0.01"]).method.ratio == 0.01


@pytest.mark.parametrize("text", ["8/255", "'8/255'", "' 8 / 255 '", str(8 / 255)])
def test_eps_on_the_command_line(text: str) -> None:
    config = compose_config([f"threat.eps={text}"])
    assert config.threat.eps == config.inner_attack().eps == pytest.approx(8 / 255)


def test_eps_in_a_suite_and_attacks_added_and_removed() -> None:
    added = "+attack.attacks.big={attack: pgd, eps: 16/255, steps: 3}"
    suite = compose_config([added, "~attack.attacks.fgsm", "attack.attacks.pgd.eps=2/255"]).attack.build()
    assert set(suite) == {"pgd", "margin", "apgd_t", "square", "big"}
    assert (suite["big"].eps, suite["pgd"].eps) == pytest.approx((16 / 255, 2 / 255))
    assert isinstance(suite["big"], PGD)


def test_eps_in_yaml(tmp_path: Path) -> None:
    """As the files of conf/ write it, quoted or not."""
    (tmp_path / "a.yaml").write_text("plain: 8/255\nquoted: '8/255'\ndecimal: 0.5\nwhole: 1\n")
    values = OmegaConf.to_container(OmegaConf.load(tmp_path / "a.yaml"))
    assert [fraction(value, "eps") for value in values.values()] == pytest.approx([8 / 255, 8 / 255, 0.5, 1])
    assert compose_config(["dataset=mnist"]).threat.eps == pytest.approx(76 / 255)


def test_the_node_keeps_its_interpolations() -> None:
    assert OmegaConf.to_container(compose_node([]), resolve=False)["method"]["ratio"] == "${ratio}"


def test_what_a_run_does_otherwise_than_its_method_is_said_in_words() -> None:
    assert compose_config(["method=da"]).said() == []
    chosen = ["objective=mixed", "objective.beta=0.3", "training.weight_average=0.99"]
    quirks = "method.quirks=[train_mode_attack,no_random_start]"
    assert compose_config(["method=da", *chosen, quirks]).said() == [
        "objective mixed (beta 0.3)",
        "weights averaged (tau 0.99)",
        "quirk no_random_start",
        "quirk train_mode_attack",
    ]


def test_what_names_a_run() -> None:
    plain = run_directory(compose_config([]))
    assert plain.parent == Path("outputs/digits-lenet-atmc")
    for change in (
        "seed=1",
        "method.bits=4",
        "threat.eps=0.2",
        "attack=atmc",
        "dataset.val=100",
        "training.batch_size=8",
    ):
        assert run_directory(compose_config([change])).name != plain.name, change
    for change in ("device=cpu", "data_dir=elsewhere", "fresh=true", "out=there"):
        assert run_directory(compose_config([change])).name == plain.name, change
    assert run_directory(compose_config(["out=there"])).parent == Path("there/digits-lenet-atmc")


@pytest.mark.parametrize(
    ("overrides", "held_out"),
    [
        ("dataset=digits", 137),
        ("dataset=mnist", 1000),
        ("dataset=digits dataset.subset=400", 40),
        ("dataset=mnist dataset.subset=400", 40),
        ("dataset=mnist dataset.subset=20000", 1000),
        ("dataset=mnist dataset.subset=400 dataset.val=100", 100),
        ("dataset=digits dataset.subset=5", 1),
    ],
)
def test_a_subset_holds_out_a_tenth_at_most_and_what_is_typed_as_it_is(overrides: str, held_out: int) -> None:
    assert compose_config(overrides.split()).dataset.val == held_out


def test_one_value_in_two_spellings_is_one_run() -> None:
    assert run_directory(compose_config(["threat.eps=1/10"])) == run_directory(compose_config(["threat.eps=0.1"]))


# One sentence each: the overrides, and what the sentence must hold.
WRONG = {
    "unknown_key": ("method.rato=0.1", "unknown key of method 'rato'", "Did you mean ratio"),
    "unknown_key_at_the_root": ("sed=1", "'sed'", "Did you mean seed"),
    "unknown_key_of_training": ("training.batchsize=3", "'batchsize'", "batch_size"),
    "unknown_key_of_attack": ("training.attack.step=3", "'step'", "steps"),
    "unknown_key_of_model": ("model.withd=3", "'withd'", "width"),
    "unknown_key_of_schedule": ("schedule.dense.lrate=3", "'lrate'", "lr"),
    "unknown_stage": ("schedule.dens.lr=3", "schedule.dens is", "its stages are dense"),
    "key_of_another_method": ("method=al0 method.bits=4", "unknown key of method 'bits'", "ratio"),
    "added_key": ("+foo=1", "'foo'", "seed"),
    "added_key_of_method": ("+method.rato=0.1", "'rato'", "ratio"),
    "added_key_of_training": ("+training.foo=1", "'foo'", "batch_size"),
    "added_key_of_schedule": ("++schedule.dense.foo=1", "'foo'", "lr"),
    "no_key": ("=3", "'=3'", "KEY=VALUE"),
    "wrong_type": ("training.batch_size=many", "training.batch_size=many", "a whole number"),
    "wrong_type_float": ("schedule.dense.lr=fast", "schedule.dense.lr=fast", "a number"),
    "wrong_type_half": ("method.bits=2.5", "method.bits=2.5", "a whole number"),
    "wrong_type_bool": ("dataset.flip=maybe", "dataset.flip", "true or false"),
    "wrong_type_list": ("schedule.dense.milestones=[a]", "milestones", "a number"),
    "wrong_type_node": ("training.attack=3", "training.attack", ""),
    "null": ("seed=null", "seed=null is no value", "leave it out for the default"),
    "unknown_method": ("method=atcm", "unknown method 'atcm'", "Did you mean atmc"),
    "unknown_model": ("model=resnet", "unknown model 'resnet'", "Did you mean resnet"),
    "unknown_dataset": ("dataset=cifar", "unknown dataset 'cifar'", "Did you mean cifar10"),
    "unknown_suite": ("attack=fast", "unknown attack 'fast'", "choose from atmc, atmc_panel"),
    "empty_choice": ("method=", "method", "choose from"),
    "removed_method": ("~method", "method", ""),
    "two_methods": ("method=[al0,atmc]", "method", ""),
    "unknown_attack": ("+attack.attacks.x={attack: pdg, eps: 0.1}", "unknown attack 'pdg'", "Did you mean pgd?"),
    "half_a_wrm": ("+attack.attacks.wrm.gamma=1.3", "wrm has gamma=1.3 and steps=0", "give both"),
    "unknown_target": ("+attack.attacks.pgd.target=5", "attack.attacks.pgd.target=5", "a string is allowed"),
    "target_rule": ("+attack.attacks.pgd.target=far", "target='far'", "least_likely"),
    "unknown_loss": ("+attack.attacks.pgd.loss=hinge", "unknown loss 'hinge'", "ce, dlr, kl, margin"),
    "momentum_range": ("+attack.attacks.pgd.momentum=2", "momentum=2", "[0, 1]"),
    "verdict_range": ("attack.verdict=-1", "attack.verdict=-1", "at least"),
    "unknown_attack_by_name": ("+attack.attacks.pgdd.eps=0.1", "unknown attack 'pgdd'", "Did you mean pgd or"),
    "unknown_setting": ("+attack.attacks.pgd.stpes=3", "attack.attacks.pgd 'stpes'", "Did you mean steps"),
    "attack_type": ("attack.attacks.pgd.steps=many", "attack.attacks.pgd.steps", "whole number"),
    "attack_type_bool": ("+attack.attacks.pgd.random_start=3", "attack.attacks.pgd.random_start", "true or false"),
    "attack_range": ("attack.attacks.pgd.steps=0", "attack.attacks.pgd: steps=0", "at least 1"),
    "attack_norm": ("attack.attacks.pgd.norm=L1", "attack.attacks.pgd", "choose from Linf, L2"),
    "attack_no_settings": ("+attack.attacks.x=pgd", "attack.attacks.x='pgd'", "write {attack: pgd"),
    "attack_no_eps": ("+attack.attacks.x={attack: pgd}", "attack.attacks.x has no eps", "attack.attacks.x.eps=8/255"),
    "attack_reserved": ("+attack.attacks.clean={eps: 0.1}", "'clean'", "letters"),
    "no_attacks": ("attack.attacks=null", "attack.attacks", ""),
    "attacks_taken_out": ("attack=pgd20 ~attack.attacks.pgd ~attack.attacks.margin", "is empty", "quick"),
    "attacks_excluded": (
        "attack=atmc_panel ~attack.attacks.pgd_2 ~attack.attacks.pgd_8 ~attack.attacks.fgsm_4",
        "no attack of wrm counts in the worst case",
        "+attack.attacks.pgd",
    ),
    "verdict_on_few": ("attack.verdict=5", "attack.verdict=5", "at least 20"),
    "attack_name": ("+attack.attacks.file={attack: fgsm, eps: 0.1}", "'file'", "letters"),
    "attack_kind": ("+attack.attacks.x={attack: [a], eps: 0.1}", "attack.attacks.x.attack", "a string"),
    "eps_overflow": ("attack.attacks.pgd.eps='1e400'", "1e400", "8/255"),
    "seed_too_large": ("seed=99999999999999999999999", "seed=99999999999999999999999", "2^63"),
    "best_of_nothing": ("dataset.val=0 training.selection=best", "selection=best", "dataset.val"),
    "hydra_keys": ("hydra.run.dir=x", "hydra.run.dir=x", "out=DIR"),
    "inner_attack": ("training.attack.steps=0", "training.attack.steps=0", "at least 1"),
    "step_of_zero": ("+attack.attacks.pgd.step_size=0", "step_size=0", "(0"),
    "eps_in_grey_levels": ("threat.eps=8", "threat.eps=8", "did you mean 8/255?"),
    "eps_in_a_suite": ("attack.attacks.pgd.eps=8", "attack.attacks.pgd: eps=8", "did you mean 8/255?"),
    "eps_text": ("threat.eps=eight", "threat.eps='eight'", "8/255"),
    "eps_bool": ("attack.attacks.pgd.eps=true", "attack.attacks.pgd", "8/255"),
    "eps_zero": ("threat.eps=0", "threat.eps=0 ", "(0, 1]"),
    "eps_negative": ("threat.eps=-0.1", "threat.eps=-0.1", "(0, 1]"),
    "eps_over_zero": ("threat.eps=8/0", "threat.eps='8/0'", "8/255"),
    "norm": ("threat.norm=L1", "'L1'", "choose from Linf, L2"),
    "steps": ("training.attack.steps=0", "steps=0", "at least 1"),
    "relative_step": ("training.attack.relative_step=-1", "training.attack.relative_step=-1", "(0, inf)"),
    "bn_mode": ("training.attack.bn_mode=test", "training.attack.bn_mode 'test'", "eval, train"),
    "natural_weight": ("training.natural_weight=1", "training.natural_weight=1", "[0, 1)"),
    "batch_size": ("training.batch_size=0", "training.batch_size=0", "at least 1"),
    "precision": ("training.precision=fp16", "training.precision 'fp16'", "choose from auto, bf16, float32"),
    "selection": ("training.selection=first", "training.selection 'first'", "choose from best, last"),
    "ratio_zero": ("method.ratio=0", "method.ratio=0", "(0, 1]"),
    "ratio_two": ("ratio=2", "ratio=2", "(0, 1]"),
    "ratio_nan": ("method.ratio=nan", "method.ratio=nan", "finite"),
    "bits": ("method.bits=17", "method.bits=17", "1 to 16"),
    "post_bits": ("method=da quantise.bits=0", "quantise.bits=0", "1 to 16"),
    "both_quantisers": ("method.bits=4 quantise.bits=8", "quantise.bits=8 and method.bits=4", "method.bits=32"),
    "rho": ("method.rho=-1", "method.rho=-1", "at least 0"),
    "rho_nan": ("method.rho=nan", "rho=nan", ""),
    "interval": ("method.quantise_interval=0", "method.quantise_interval=0", "at least 1"),
    "epochs_scale": ("method.epochs_scale=0", "method.epochs_scale=0", "(0, 100]"),
    "epochs": ("schedule.dense.epochs=-1", "schedule.dense.epochs=-1", "at least 0"),
    "nothing_to_train": (
        "method=da schedule.dense.epochs=0",
        "all stages of method=da have 0 epochs",
        "schedule.dense",
    ),
    "milestones_outside": (
        "dataset=cifar10 method=da schedule.dense.epochs=100 schedule.dense.milestones=[50,120,150]",
        "2 of the 3 milestones of schedule.dense lie outside the 100 epochs of stage dense",
        "schedule.dense.milestones=[50], or shorten both by method.epochs_scale",
    ),
    "milestone_at_the_start": (
        "method=da schedule.dense.decay=milestones schedule.dense.milestones=[-1,5]",
        "1 of the 2 milestones of schedule.dense",
        "epochs_scale",
    ),
    "targets_of_few_classes": (
        "attack=autoattack attack.attacks.apgd_t.targets=100",
        "attack.attacks.apgd_t: targets=100 is more than the 9 other classes of 10",
        "at most 9",
    ),
    "targets_of_fab": (
        "attack=autoattack attack.attacks.fab_t.targets=10",
        "attack.attacks.fab_t: targets=10",
        "at most",
    ),
    "target_that_is_the_class": ("+attack.attacks.pgd.target='+10'", "target=+10 is the class itself", "another shift"),
    "eps_in_l2": ("threat.norm=L2 threat.eps=300", "threat.eps=300 in L2 allows any image", "28 apart"),
    "natural_weight_unused": (
        "method=nat objective=adversarial training.natural_weight=1",
        "training.natural_weight=1",
        "[0, 1)",
    ),
    "suite_batch": ("attack.batch_size=0", "attack.batch_size=0 is", "at least 1"),
    "lr": ("schedule.dense.lr=-1", "lr=-1", "at least 0"),
    "lr_nan": ("schedule.dense.lr=nan", "lr=nan", ""),
    "lr_infinite": ("schedule.dense.lr=inf", "lr=inf", ""),
    "gamma_nan": ("schedule.dense.gamma=nan", "gamma=nan", ""),
    "milestone_nan": ("schedule.dense.milestones=[nan]", "milestones", ""),
    "momentum": ("schedule.dense.momentum=1.5", "momentum=1.5", ""),
    "name_that_leaves_the_folder": ("method.name=../../x", "'../../x'", ""),
    "decay": ("schedule.dense.decay=exp", "'exp'", "choose from milestones, linear, cosine, constant"),
    "optimizer": ("schedule.dense.optimizer=lion", "'lion'", "choose from sgd, adam"),
    "width": ("model.width=0", "model.width=0", "(0, 64]"),
    "channels": ("model.channels=3", "model.channels=3 does not fit images of 1 channels", "set model.channels=1"),
    "lenet_on_small_images": ("dataset.shape=[1,8,8]", "model=lenet needs images of 16x16 pixels or more", "not 8x8"),
    "shape": ("dataset.shape=[28,28]", "dataset.shape=[28, 28]", "[channels, height, width]"),
    "held_out": ("dataset.subset=100 dataset.val=100", "dataset.val=100", "below 100"),
    "seed": ("seed=-1", "seed=-1", "0 to 2^63 - 1"),
    "depth": ("model=resnet18 model.depth=20", "unknown model.depth '20'", "choose from 18, 34"),
    "sweep_without_m": ("seed=0,1", "seed=0,1 is a sweep", "-m"),
    "sweep_of_choices_without_m": ("method=al0,atmc", "method=al0,atmc is a sweep", "-m"),
    "objective": ("objective=hinge", "unknown objective 'hinge'", "choose from adversarial, method, mixed"),
    "objective_beta_of_none": (
        "objective=natural objective.beta=1",
        "objective.beta=1 with objective=natural",
        "leave it out",
    ),
    "objective_without_beta": ("objective=trades objective.beta=null", "objective.beta=null", "mixed and trades take"),
    "mixed_beta": ("objective=mixed objective.beta=1", "objective.beta=1", "(0, 1)"),
    "trades_beta": ("objective=trades objective.beta=0", "objective.beta=0", "more than 0"),
    "weight_average": ("training.weight_average=1", "training.weight_average=1", "[0, 1)"),
    "quirk": ("method.quirks=[fast]", "unknown method.quirks 'fast'", "no_random_start, off_support"),
    "quirk_of_another_method": ("method=da method.quirks=[attached_dual]", "'attached_dual'", "train_mode_attack"),
    "recipe": ("recipe=dnr", "unknown recipe 'dnr'", "dnr-cifar10"),
    "recipe_and_a_schedule": (
        "recipe=dnr-cifar10 schedule.retrain.epochs=3",
        "schedule.retrain is for a stage that method=dnr does not have",
        "its stages are rewired",
    ),
    "recipe_and_ones_own_key": ("recipe=dnr-cifar10 method.ratios.conv1=0.1", "unknown key of method 'ratios'", ""),
    "schedule_without_plus": ("method=al0 schedule.retrain.lr=3", "schedule.retrain is", "its stages are dense"),
    "schedule_as_a_whole": ("++schedule={foo:{epochs:3}}", "schedule.foo is for a stage", "its stages are dense"),
    "trades_and_no_random_start": ("objective=trades method.quirks=[no_random_start]", "random start", "leave"),
    "restarts": ("schedule.dense.restarts=0", "restarts=0", "at least 1"),
    "schedule_of_no_stage": ("method=da +schedule.retrain.epochs=3", "schedule.retrain", "its stages are dense"),
    "schedule_key": ("method=admm +schedule.retrain.epoch=3", "unknown key of schedule.retrain 'epoch'", "epochs"),
    "schedule_type": ("method=admm +schedule.retrain.epochs=x", "schedule.retrain.epochs=x", "wrong type"),
    "schedule_value": ("method=admm +schedule.retrain=3", "schedule.retrain=3", "set its fields"),
    "schedule_range": ("method=admm +schedule.retrain.lr=-1", "lr=-1", "at least 0"),
    "ratios_without_plus": ("method=admm method.ratios.fc1=0.1", "no key 'fc1'", "+method.ratios={fc1"),
    "grammar": ("seed=1 method.ratio", "cannot read 'method.ratio'", "KEY=VALUE"),
    "grammar_brackets": ("dataset.shape=[1,2", "cannot read 'dataset.shape=[1,2'", "write ']' at the end"),
    "interpolation": ("ratio=${nowhere}", "nowhere", ""),
}


def overrides_of(text: str) -> list[str]:
    """Split at blanks, but for those inside braces."""
    return [text] if "{" in text else text.split(" ")


@pytest.mark.parametrize(("text", "given", "cure"), WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_is_one_sentence(
    text: str, given: str, cure: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robcomp.runs.train.train", lambda *_: pytest.fail("it was accepted"))
    assert main(["train", *overrides_of(text)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("robcomp: ")
    assert given in line
    assert cure in line
    assert line.endswith((".", "?"))
    assert len(line) < 400


def test_nothing_is_written_for_a_wrong_configuration(sandbox: Path) -> None:
    main(["train", "method.ratio=7"])
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    from robcomp.hardware import choose_device

    with pytest.raises(UserError, match=f"device={device} is not on this machine; choose auto or cpu"):
        choose_device(device)


RECIPES = [name for name in choices("recipe") if name != "none"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_published_recipe_is_a_whole_configuration_and_the_command_line_wins(recipe: str) -> None:
    config = compose_config([f"recipe={recipe}"])
    paper, dataset = recipe.split("-")
    assert config.dataset.name == dataset
    assert config.method.name == {"dnr": "dnr", "iccv": "admm", "thesis": "admm_oneshot"}[paper]
    chosen = compose_config(
        [f"recipe={recipe}", "model=resnet18", "attack=quick", "threat.eps=0.01", "method.ratio=0.3"]
    )
    assert (chosen.model.name, chosen.attack.name, chosen.threat.eps) == ("resnet18", "quick", 0.01)
    assert chosen.method.ratio == 0.3


@pytest.mark.parametrize(("place", "recipe"), list(enumerate(RECIPES)))
def test_every_recipe_takes_rivals_and_every_method_is_one(place: int, recipe: str) -> None:
    """Each recipe stays as it is, and the methods fit its network: some of them, so that all are met, or all."""
    own = compose_config([f"recipe={recipe}"])
    for method in choices("method") if whole.PRODUCT else choices("method")[place :: len(RECIPES)]:
        rival = compose_config([f"recipe={recipe}", f"method={method}"])
        for part in ("dataset", "model", "attack", "threat", "training", "schedule", "ratio"):
            assert getattr(rival, part) == getattr(own, part)
        assert rival.method.name == method
        assert all(stage.schedule.epochs > 0 for stage in rival.stages())
        with torch.device("meta"):
            rival.method.check(rival.model.build(tuple(rival.dataset.shape), rival.dataset.classes))


def test_a_recipes_settings_of_its_method_are_for_no_other() -> None:
    def method(*overrides: str) -> Any:
        return compose_config(["recipe=dnr-cifar100", *overrides]).method

    assert [(how.layers, how.warmup) for how in (method(), method("method=dnr_c"))] == [("conv", 0.0294)] * 2
    assert method("method.layers=all").layers == "all"
    assert method("method=sparse_momentum").layers == "all"
    assert compose_config(["recipe=iccv-mnist", "method=lottery"]).method.ratios["fc1"] == 0.01


def test_recipes_say_what_the_papers_print() -> None:
    """As the papers print them: epochs, learning rate, decay, attack and density of each paper."""
    dnr = compose_config(["recipe=dnr-cifar100"])
    attack = dnr.inner_attack()
    assert (attack.eps, attack.steps, attack.random_start) == (pytest.approx(8 / 255), 7, True)
    assert attack.step_size == pytest.approx(0.01)
    (stage,) = dnr.method.stages(dnr.recipe_context())
    how = stage.schedule
    assert (how.epochs, how.lr, how.momentum, how.weight_decay, how.gamma) == (170, 0.1, 0.9, 5e-4, 0.2)
    assert how.milestones == [80, 120, 160]
    assert stage.objective.share * 170 == pytest.approx(5, abs=0.01)
    assert (dnr.method.ratio, dnr.method.layers, dnr.model.name, dnr.training.batch_size) == (
        0.05,
        "conv",
        "vgg16",
        128,
    )
    admm = compose_config(["recipe=iccv-cifar10"])
    stages = {stage.name: stage.schedule for stage in admm.method.stages(admm.recipe_context())}
    assert {name: (how.epochs, how.lr, how.decay, how.restarts) for name, how in stages.items()} == {
        "dense": (200, 0.1, "cosine", 1),
        "admm": (200, 0.01, "milestones", 10),
        "retrain": (200, 0.01, "milestones", 1),
    }
    rates = [stages["admm"].rate(epoch) for epoch in (0, 6.6, 6.7, 13.3, 13.4, 19.9, 20)]
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 0.01])
    assert stages["retrain"].milestones == [80, 150]
    attack = admm.inner_attack()
    assert (attack.steps, attack.step_size) == (10, pytest.approx(2 / 255))
    mnist = compose_config(["recipe=iccv-mnist"]).inner_attack()
    assert (mnist.eps, mnist.steps, mnist.step_size) == (0.3, 40, pytest.approx(0.01, rel=1e-5))


def test_a_stage_has_fields_of_its_own_over_the_schedule_that_it_shares() -> None:
    config = compose_config(["method=admm", "dataset=cifar10", "+schedule.retrain.epochs=20", "+schedule.retrain.lr=3"])
    stages = {stage.name: stage.schedule for stage in config.method.stages(config.recipe_context())}
    assert (stages["retrain"].epochs, stages["retrain"].lr) == (20, 3.0)
    assert (stages["admm"].epochs, stages["admm"].lr) == (200, 0.01)
    assert stages["retrain"].milestones == pytest.approx([8, 15])


@pytest.mark.parametrize("dataset", choices("dataset"))
def test_admm_learns_throughout_each_of_its_periods_on_every_data_set(dataset: str) -> None:
    """By milestones as published: the thirds of each of the ten periods, and 80 and 150 of 200 epochs of retraining.

    Where rates fall linearly they do so in each period.
    """
    config = compose_config(["method=admm", f"dataset={dataset}", *OWN.get(dataset, [])])
    base = config.schedule["sparse"].lr * config.training.lr_scale
    stages = {stage.name: stage.schedule for stage in config.stages()}
    admm, retrain = stages["admm"], stages["retrain"]
    parts = [part / 600 * admm.epochs for part in range(600)]
    rates = [admm.rate(part + 1e-6) for part in parts]
    assert sum(rate < base / 99 for rate in rates) <= 200
    if admm.decay == "linear":
        assert rates == pytest.approx([base * (1 - part % 60 / 60) for part in range(600)], rel=1e-3)
        return
    assert rates == pytest.approx([base * 0.1 ** (part % 60 // 20) for part in range(600)])
    at = [retrain.rate(share * retrain.epochs) for share in (0, 0.39, 0.41, 0.74, 0.76, 0.99)]
    assert at == pytest.approx([base, base, base / 10, base / 10, base / 100, base / 100])


@pytest.mark.parametrize(
    ("typed", "decay", "milestones"),
    [
        (["schedule.admm.decay=linear"], "linear", None),
        (["schedule.sparse.decay=linear"], "linear", None),
        (["schedule.admm.milestones=[50]"], "milestones", [50]),
        (["schedule.admm.epochs=60"], "milestones", [20, 40]),
        (["schedule.sparse.epochs=60", "method.epochs_scale=0.5"], "milestones", [10, 20]),
    ],
)
def test_a_stages_own_fields_go_before_the_methods_milestones(
    typed: list[str], decay: str, milestones: list[float] | None
) -> None:
    admm = compose_config(["method=admm", "dataset=cifar10", *typed]).stages()[1].schedule
    assert admm.decay == decay
    assert milestones is None or admm.milestones == pytest.approx(milestones)
