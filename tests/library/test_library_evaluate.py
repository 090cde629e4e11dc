"""`rc.evaluate`: what users have works or gets one sentence, nothing is printed, and the figures are the command's."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, RUN, SHAPE, images
from torch import Tensor, nn

import robcomp as rc
from robcomp import data
from robcomp.cli.parser import main
from robcomp.settings.compose import compose_config

X, Y = images(30, 5).images, images(30, 5).labels
FLOATS = X.float() / 255
SUITE = {"fgsm": {}, "pgd": {"steps": 3}}


class Bands(nn.Module):
    """Knows the place of the band, through a batch norm, so that mode, dtype and copies matter."""

    def __init__(self, scale: float = 8.0) -> None:
        super().__init__()
        self.pool, self.bn = nn.AdaptiveAvgPool2d((CLASSES, 1)), nn.BatchNorm1d(CLASSES)
        self.head = nn.Linear(CLASSES, CLASSES)
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.bn.running_mean.fill_(0.3)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.pool(x).flatten(1)) * self.scale)


def evaluate(model: Any = None, x: Any = FLOATS, y: Any = Y, **more: Any) -> "rc.Evaluation":
    model = Bands().eval() if model is None else model
    return rc.evaluate(model, x, y, **{"suite": SUITE, "eps": "50/255", "verdict": 0, **more})


def same(found: "rc.Evaluation", wanted: "rc.Evaluation") -> bool:
    return all(np.array_equal(found.outcomes[name], wanted.outcomes[name]) for name in wanted)


@pytest.fixture(scope="module")
def usual() -> "rc.Evaluation":
    """The figures of the network as it should be given: between nothing and everything, so that they can differ."""
    found = evaluate()
    assert found.clean.value == 1
    assert 0.1 < found.worst_case.value < 0.9
    return found


def test_each_norm_has_a_worst_case_and_what_is_in_none_is_called_excluded() -> None:
    far = {"attack": "pgd", "eps": 1.0, "norm": "L2", "steps": 2}
    found = evaluate(suite={"pgd": {"steps": 2, "eps": 0.1}, "far": far, "out": {**far, "excluded": True}}, eps=None)
    pgd, apart, out, linf, l2 = str(found).splitlines()[2:7]
    assert apart.endswith("L2 eps 1")
    assert out.endswith("L2 eps 1, excluded")
    assert linf.startswith("  worst at Linf 0.1 ")
    assert linf.endswith("of pgd")
    assert pgd.split()[1] == linf.split()[4]
    assert l2.startswith("  worst at L2 1 ")
    assert l2.endswith("of far")
    assert apart.split()[1] == l2.split()[4]


def test_a_result_is_read_by_name_and_printed(usual: "rc.Evaluation") -> None:
    assert list(usual) == ["clean", "fgsm", "pgd", "worst_case"]
    assert usual["worst_case"] is usual.worst_case
    assert usual["pgd"].interval[0] < usual["pgd"].value < usual["pgd"].interval[1]
    assert usual["pgd"].attack["eps"] == 50 / 255
    assert usual["pgd"].correct == usual.outcomes["pgd"].sum()
    assert np.array_equal(usual.outcomes["worst_case"], usual.outcomes["fgsm"] & usual.outcomes["pgd"])
    assert {found.shape for found in usual.outcomes.values()} == {(30,)}
    assert usual.verdict is None
    lines = str(usual).splitlines()
    assert lines[0] == "suite own on 30 images (seed 0), 95 % intervals"
    assert lines[1].split() == ["clean", "100.0", "%", "[88.6,", "100.0]"]
    assert lines[3].endswith("Linf eps 0.1961")
    assert lines[4].startswith("  worst case")
    assert "not checked" in lines[5]
    content = json.loads(usual.to_json())
    assert content["accuracy"]["worst_case"]["correct"] == usual.worst_case.correct
    assert content["verdict"] is None
    with pytest.raises(KeyError, match=r"unknown accuracy 'pdg'.*Did you mean pgd"):
        usual["pdg"]


def test_nothing_is_printed_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(verdict=20)
    assert capfd.readouterr() == ("", "")


def test_the_verdict_says_what_it_saw() -> None:
    found = evaluate(verdict=20)
    assert (found.verdict.trusted, found.verdict.images) == (True, 20)
    assert "Verdict: no flag in 7 checks on 20 images." in str(found)
    masked = evaluate(lambda x: Bands().eval()(x.round()), verdict=20)
    assert masked.verdict.trusted is False
    assert "NOT to be trusted" in str(masked)
    assert " (!)" in str(masked)


def test_the_network_comes_back_as_it_was() -> None:
    model = Bands().train()
    model.bn.eval()
    model.head.weight.requires_grad_(False)
    model.bn.weight.grad = torch.ones(CLASSES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model)
    assert (model.training, model.bn.training, model.head.training) == (True, False, True)
    assert not model.head.weight.requires_grad
    assert torch.equal(model.bn.weight.grad, torch.ones(CLASSES))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Named(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.net, self.kind = Bands(), kind

    def forward(self, x: Tensor) -> Any:
        return self.kind(logits=self.net(x))


class Uncopyable(Bands):
    """Cannot be folded: it keeps what a copy lacks."""

    def __copy__(self) -> "Uncopyable":
        raise KeyError("not to be copied")


KINDS: dict[str, dict[str, Any]] = {
    "in training": {"model": Bands().train()},
    "a function": {"model": lambda x: Bands().eval()(x)},
    "a method": {"model": Bands().eval().forward},
    "double weights": {"model": Bands().double()},
    "a dict of logits": {"model": Named(dict)},
    "an object of logits": {"model": Named(SimpleNamespace)},
    "a network that minds copies": {"model": Uncopyable()},
    "more classes than labels": {"model": nn.Sequential(Bands(), nn.ConstantPad1d((0, 4), -9.0))},
    "bytes": {"x": X},
    "an array of bytes": {"x": X.numpy(), "y": Y.numpy()},
    "an array of doubles": {"x": FLOATS.double().numpy()},
    "doubles": {"x": FLOATS.double()},
    "strided images": {"x": FLOATS.to(memory_format=torch.channels_last)},
    "images that take gradients": {"x": FLOATS.clone().requires_grad_()},
    "labels of 32 bits": {"y": Y.int()},
    "labels of 16 bits": {"y": Y.numpy().astype(np.uint16)},
    "a list of labels": {"y": Y.tolist()},
    "attacks": {"suite": {"fgsm": rc.attacks.FGSM("50/255"), "pgd": rc.attacks.PGD("50/255", steps=3)}, "eps": None},
    "eps in the settings": {"suite": {"fgsm": {"eps": 50 / 255}, "pgd": {"eps": "50/255", "steps": 3}}, "eps": None},
    "eps over the settings": {"suite": {"fgsm": {"eps": 0.5}, "pgd": {"eps": 0.01, "steps": 3}}},
    "numbers of a Fraction's text": {"eps": " 50 / 255 "},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_means_the_same_gives_the_same(kind: str, usual: "rc.Evaluation") -> None:
    assert same(evaluate(**KINDS[kind]), usual)


def test_half_weights_are_evaluated_as_they_are(usual: "rc.Evaluation") -> None:
    found = evaluate(Bands().half())
    assert found.clean.value == 1
    assert abs(found.worst_case.correct - usual.worst_case.correct) <= 2


def test_under_no_grad_the_gradients_are_there(usual: "rc.Evaluation") -> None:
    with torch.no_grad():
        assert same(evaluate(), usual)


def test_in_inference_mode_the_gradients_are_there(usual: "rc.Evaluation") -> None:
    model = Bands()
    with torch.inference_mode():
        assert same(evaluate(model), usual)
        assert same(evaluate(model, FLOATS.clone(), Y.clone()), usual)
        x_adv = rc.attacks.PGD(0.1)(model, FLOATS.clone(), Y.clone())
    assert torch.equal(x_adv, rc.attacks.PGD(0.1)(Bands(), FLOATS, Y))


def test_the_seed_decides() -> None:
    suite = {"square": {"queries": 20}}
    assert same(evaluate(suite=suite, eps=0.3, seed=3), evaluate(suite=suite, eps=0.3, seed=3))
    outcomes = [evaluate(suite=suite, eps=0.3, seed=seed).outcomes["square"] for seed in range(5)]
    assert any(not np.array_equal(outcomes[0], other) for other in outcomes[1:])


def test_one_attack_is_a_suite_and_distances_are_kept() -> None:
    found = evaluate(suite=rc.attacks.FAB(0.2, steps=5), eps=None)
    assert list(found) == ["clean", "fab", "worst_case"]
    assert np.array_equal(found.outcomes["fab"], found.distances["fab"] > 0.2)
    assert found["fab"].median_distance == pytest.approx(float(np.median(found.distances["fab"])))
    assert math.isfinite(found["fab"].median_distance)


def test_an_excluded_attack_keeps_its_eps() -> None:
    suite = {"pgd": {"steps": 2, "eps": 0.5}, "other": {"attack": "fgsm", "norm": "L2", "eps": 2.0}}
    found = evaluate(suite=suite, eps=0.1)
    assert (found["pgd"].attack["eps"], found["other"].attack["eps"]) == (0.1, 2.0)
    assert (found["pgd"].excluded, found["other"].excluded) == (False, True)


def test_a_named_suite_attacks_in_the_threat_model_given() -> None:
    quick = rc.evaluate(Bands(), X, Y, verdict=0)
    assert {entry.attack["eps"] for entry in quick.accuracy.attacks.values()} == {8 / 255}
    for suite in ("quick", "iccv"):  # one that takes the threat model's, and one with an eps of its own
        found = rc.evaluate(Bands(), X, Y, suite, eps=0.5, norm="L2", verdict=0, batch_size=7)
        assert {(entry.attack["eps"], entry.attack["norm"]) for entry in found.accuracy.attacks.values()} == {
            (0.5, "L2")
        }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"x": FLOATS[:0], "y": Y[:0]}, "x holds no image"),
    "grey levels as floats": ({"x": X.float()}, "x lies in .* divide grey levels by 255"),
    "nan": ({"x": FLOATS * torch.nan}, "x holds NaN"),
    "no channels": ({"x": FLOATS[:, 0]}, r"x\[:, None\] for grey"),
    "channels last": ({"x": X.permute(0, 2, 3, 1).numpy()}, r"x\.transpose\(0, 3, 1, 2\) of an array"),
    "long images": ({"x": X.long()}, r"x is torch\.int64"),
    "float labels": ({"y": Y.float()}, r"y\.long\(\)"),
    "one-hot": ({"y": np.eye(3)[Y]}, r"y\.argmax\(1\)"),
    "strings": ({"y": ["one"] * 30}, "y holds strings"),
    "out of range": ({"y": Y + 5}, "the labels go up to 7 and the network has 3 classes"),
    "one logit": ({"model": lambda x: x.mean((1, 2, 3))[:, None], "y": Y % 2}, "one number an image"),
    "a tuple": ({"model": lambda x: (x,)}, "returns a tuple"),
    "a diverged network": ({"model": Bands(torch.nan)}, "returns NaN or infinity for test image 0"),
    "a network for other images": ({"model": nn.Conv2d(3, 8, 3)}, r"cannot take images \[8, 1, 16, 16\]"),
    "an unknown suite": ({"suite": "autoatack"}, "unknown suite 'autoatack'.*Did you mean autoattack"),
    "a suite of a data set": ({"suite": "atmc"}, "as many steps as were published for its data set"),
    "no suite": ({"suite": 3}, "suite=3 is no suite"),
    "an empty suite": ({"suite": {}}, "is no suite"),
    "no attack": ({"suite": {"pgd": 4}}, r"suite\['pgd'\] is 4"),
    "no eps": ({"suite": {"pgd": {}}, "eps": None}, r"suite\['pgd'\] has no eps"),
    "attacks and eps": ({"suite": {"pgd": rc.attacks.PGD(0.1)}}, "eps would replace what PGD"),
    "an unknown attack": ({"suite": {"pdg": {}}}, "unknown attack 'pdg'.*Did you mean pgd"),
    "an unknown setting": ({"suite": {"pgd": {"step": 3}}}, "unknown setting of pgd 'step'"),
    "a setting of a wrong type": ({"suite": {"pgd": {"steps": "3"}}}, r"^pgd\.steps='3' has the wrong type"),
    "a reserved name": ({"suite": {"clean": {"attack": "pgd"}}}, "'clean' is not allowed as the name of an attack"),
    "only what has no ball": ({"suite": {"wrm": {"gamma": 1.3, "steps": 2}}}, "no attack of the suite counts"),
    "eps in grey levels": ({"eps": 8}, "did you mean 8/255"),
    "eps in words": ({"eps": "small"}, "eps='small' is not a number"),
    "another norm": ({"norm": "L1"}, "norm='L1' is not a norm"),
    "targets past the classes": ({"suite": {"fab_t": {"targets": 100}}}, r"^fab_t: targets=100"),
    "a seed in words": ({"seed": "a"}, "seed='a' is not a whole number"),
    "a batch of none": ({"batch_size": 0}, "^batch_size=0"),
    "a batch in words": ({"batch_size": "8"}, "batch_size='8' is not a whole number"),
    "a verdict of too few": ({"verdict": 5}, "^verdict=5 is out of range; a verdict is on at least 20 images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_evaluated_gets_one_sentence(case: str) -> None:
    given, sentence = REFUSED[case]
    with pytest.raises(rc.UserError, match=sentence) as caught:
        evaluate(**given)
    assert "\n" not in str(caught.value)
    assert "attack.attacks" not in str(caught.value)


# The figures of the command, image by image

FEWER = ["dataset.test_subset=8", "attack.verdict=20", "attack.batch_size=7"]
NETWORKS = {
    "lenet": ["model.width=0.1"],
    "resnet18": ["model.width=0.1"],
    "vgg16": ["model.width=0.05"],
}


def external(name: str, *settings: str) -> Path:
    """Weights for a network of `name` that knows something of the images."""
    cfg = compose_config([*(o for o in RUN if not o.startswith("model")), f"model={name}", *settings]).model
    torch.manual_seed(1)
    model = cfg.build(SHAPE, CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(FLOATS), Y).backward()
        optimizer.step()
    save_file(model.state_dict(), f"{name}.safetensors")
    return Path(f"{name}.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_outcomes_are_those_of_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        o
        for o in RUN
        if not o.startswith(("schedule", "training", "model", "attack", "~attack", "dataset.test", "dataset.val"))
    ]
    chosen = [
        *settings,
        *FEWER,
        f"model={name}",
        f"model.weights={external(name, *settings, *NETWORKS[name])}",
        *NETWORKS[name],
    ]
    config = compose_config(chosen)
    test = data.load(replace(config.dataset, val=0), Path(config.data_dir)).test
    checks, broken = 20 if name == "lenet" else 0, []
    for suite, eps in (("quick", "50/255"), ("autoattack", "60/255" if name == "lenet" else "0.3")):
        assert main(["evaluate", *chosen, f"attack={suite}", f"threat.eps={eps}", f"attack.verdict={checks}"]) == 0
        folder = Path(capsys.readouterr().out.split("run directory:")[1].strip())
        found = rc.evaluate(rc.load(folder), test.images, test.labels, suite, eps=eps, verdict=checks, batch_size=7)
        with np.load(folder / "outcomes.npz") as wanted:
            assert set(wanted.files) == set(found.outcomes)
            assert all(np.array_equal(found.outcomes[key], wanted[key]) for key in wanted.files)
        report = rc.read_report(folder)
        assert found.verdict == report.verdict
        assert found.worst_case == report.accuracy.worst_case
        broken.append(found.clean.correct - found.worst_case.correct)
    assert 0 < broken[0] <= broken[1]
