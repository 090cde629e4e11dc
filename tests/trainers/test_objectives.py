"""What a stage minimises, and that the inner attack leaves nothing behind."""

import pytest
import torch
from tiny import randomise_batch_norm, rng, train_state, two_layers
from torch import Tensor
from torch.nn import functional as F

from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError
from robcomp.models.lenet import LeNetConfig
from robcomp.models.resnet import ResNetConfig
from robcomp.seeding import generator
from robcomp.trainers.loop.graphs import make_gradients
from robcomp.trainers.objectives import Adversarial, Natural, NaturalWarmup, Trades
from robcomp.trainers.state import TrainState

ATTACK = PGD("20/255", steps=3)


def by_hand(state: TrainState, x: Tensor, y: Tensor, natural: float) -> tuple[Tensor, Tensor, Tensor]:
    """The value, and the losses on x and x_adv, the attack made on the model itself."""
    x_adv = ATTACK(state.model, x, y, generator("cpu", state.seed, state.stage, state.step, "attack"))
    clean, adversarial = F.cross_entropy(state.model(x), y), F.cross_entropy(state.model(x_adv), y)
    return natural * clean + (1 - natural) * adversarial, clean, adversarial


def test_natural_is_the_mean_cross_entropy() -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    loss = Natural().loss(state, x, y)
    assert loss.value.item() == pytest.approx(F.cross_entropy(state.model(x), y).item())
    assert loss.clean == (state.model(x).argmax(1) == y).sum()
    assert loss.robust is None


@pytest.mark.parametrize("natural", [0.0, 0.3, 0.5])
def test_adversarial_is_the_weighted_sum(natural: float) -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    loss = Adversarial(ATTACK, natural).loss(state, x, y)
    expected, clean, adversarial = by_hand(state, x, y, natural)
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert adversarial > clean * 1.02
    assert loss.robust <= (state.model(x).argmax(1) == y).sum()
    assert (loss.clean is None) == (natural == 0)


def test_gradients_are_those_of_the_weighted_sum() -> None:
    """x_adv counts as data: nothing flows back through the attack."""
    state = train_state(LeNetConfig(width=0.1).build((1, 16, 16), 3))
    x, y = state.batch()
    make_gradients(Adversarial(ATTACK, 0.3), state)(x, y)
    got = [p.grad.clone() for p in state.model.parameters()]
    expected = torch.autograd.grad(by_hand(state, x, y, 0.3)[0], list(state.model.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(got, expected, strict=True))


def test_gradients_of_two_steps_do_not_add_up() -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    gradients = make_gradients(Natural(), state)
    gradients(x, y)
    first = [p.grad.clone() for p in state.model.parameters()]
    gradients(x, y)
    assert all(torch.equal(p.grad, g) for p, g in zip(state.model.parameters(), first, strict=True))


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_the_inner_attack_leaves_no_trace(bn_mode: str) -> None:
    model = ResNetConfig(width=0.05).build((1, 16, 16), 3)
    randomise_batch_norm(model)
    state = train_state(model.train())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state.attacked(PGD(0.1, steps=2, bn_mode=bn_mode), *state.batch())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_bn_mode_reaches_the_inner_attack() -> None:
    model = ResNetConfig(width=0.05).build((1, 16, 16), 3)
    randomise_batch_norm(model)
    state = train_state(model)
    x, y = state.batch()
    made = []
    for mode in ("eval", "train"):
        state.batch()  # seeds the attack's generator
        made.append(state.attacked(PGD(0.1, steps=2, bn_mode=mode), x, y))
    assert not torch.equal(*made)


def test_the_attack_sees_the_weights_of_this_step() -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    state.attacked(ATTACK, x, y)
    with torch.no_grad():
        for p in state.model.parameters():
            p.neg_()
    state.batch()
    now = state.attacked(ATTACK, x, y)
    assert torch.allclose(now, ATTACK(state.model, x, y, state.generator("attack")), atol=1e-6)


def test_an_attack_that_leaves_its_ball_is_noticed_by_the_end_of_the_epoch() -> None:
    class Far(PGD):
        def perturb(self, model: torch.nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
            return 1 - x

    state = train_state(two_layers())
    state.attacked(ATTACK, *state.batch())
    state.adversary.verify()
    state.attacked(Far(0.1), *state.batch())
    with pytest.raises(ValueError, match="left its eps ball"):
        state.adversary.verify()


@pytest.mark.parametrize("natural", [-0.1, 1.0, 2.0])
def test_the_natural_weight_lies_below_one(natural: float) -> None:
    with pytest.raises(UserError, match=r"natural_weight.*\[0, 1\)"):
        Adversarial(ATTACK, natural)


# TRADES


def test_trades_is_the_clean_loss_and_the_divergence_at_its_maximiser() -> None:
    state = train_state(two_layers())
    objective = Trades(PGD("20/255", steps=3, random_start=False), beta=2.5)
    assert objective.attack.random_start, "at x itself the divergence has no slope"
    x, y = state.batch()
    got = objective.loss(state, x, y)
    random = generator("cpu", state.seed, state.stage, state.step, "attack")
    eps = 20 / 255
    x_adv = (x + (torch.rand(x.shape, generator=random) * 2 - 1) * eps).clamp(x - eps, x + eps).clamp(0, 1)
    p = state.model(x).softmax(1).detach()
    for _ in range(3):
        x_adv.requires_grad_()
        divergence = (p * (p.log() - state.model(x_adv).log_softmax(1))).sum()
        (slope,) = torch.autograd.grad(divergence, x_adv)
        x_adv = (x_adv + 2.5 * eps / 3 * slope.sign()).clamp(x - eps, x + eps).clamp(0, 1).detach()
    p = state.model(x).softmax(1)
    divergence = (p * (p.log() - state.model(x_adv).log_softmax(1))).sum(1).mean()
    expected = F.cross_entropy(state.model(x), y) + 2.5 * divergence
    assert got.value.item() == pytest.approx(expected.item(), rel=1e-4)
    assert divergence > 1e-4
    assert got.adversarial.item() == pytest.approx(F.cross_entropy(state.model(x_adv), y).item(), rel=1e-4)
    grads = [torch.autograd.grad(v, list(state.model.parameters())) for v in (got.value, expected)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_the_attack_of_trades_does_not_look_at_labels() -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    attack = PGD(0.1, steps=2, loss="kl")
    assert torch.equal(attack(state.model, x, y, rng(3)), attack(state.model, x, (y + 1) % 3, rng(3)))
    assert not torch.equal(attack(state.model, x, y, rng(3)), PGD(0.1, steps=2)(state.model, x, y, rng(3)))


@pytest.mark.parametrize("settings", [{"target": "second"}, {"random_start": False}])
def test_what_the_divergence_cannot_do_is_said(settings: dict) -> None:
    with pytest.raises(UserError, match="loss=kl"):
        PGD(0.1, loss="kl", **settings)


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_trades_weighs_by_more_than_nothing(beta: float) -> None:
    with pytest.raises(UserError, match=r"objective\.beta.*more than 0"):
        Trades(ATTACK, beta)


# Objectives that change while a stage trains


def test_natural_warmup_starts_the_adversary_after_its_share() -> None:
    state = train_state(two_layers(), epochs=4)  # 20 steps
    hybrid = Adversarial(ATTACK, 0.5)
    objective = NaturalWarmup(hybrid, 0.25)
    kinds = []
    for step in range(20):
        state.step = step
        kinds.append(objective.at(state))
        loss = kinds[-1].loss(state, *state.batch())
        assert (loss.robust is None) == (step < 5)
    assert kinds == [Natural()] * 5 + [hybrid] * 15


def test_the_adversarial_loss_is_that_on_adversarial_images() -> None:
    state = train_state(two_layers())
    x, y = state.batch()
    assert Natural().loss(state, x, y).adversarial is None
    for natural in (0.0, 0.3):
        state.batch()
        loss = Adversarial(ATTACK, natural).loss(state, x, y)
        assert loss.adversarial.item() == pytest.approx(by_hand(state, x, y, natural)[2].item(), rel=1e-5)
        assert not loss.adversarial.requires_grad
