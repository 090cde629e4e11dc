"""The final weights: averaged, inside the constraint, with batch statistics of their own; training is untouched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import clones, convolutional, dataset, randomise_batch_norm, rng, train_stage, train_state, two_layers
from torch import nn

from robcomp.attacks.pgd import PGD
from robcomp.models.resnet import ResNetConfig
from robcomp.settings.compose import compose_config
from robcomp.trainers.compressor import Compressor
from robcomp.trainers.compressors.codebook import PostTraining, QuantisedL0
from robcomp.trainers.compressors.sparsity import GlobalL0
from robcomp.trainers.loop import stage_loop as loop
from robcomp.trainers.loop.finalise import STATISTICS_IMAGES, WeightAverage, finalise, finalised, refresh_statistics
from robcomp.trainers.objectives import Adversarial, Loss, Natural
from robcomp.trainers.stage import Schedule, Stage
from robcomp.trainers.state import TrainState

STEADY = Schedule(3, lr=0.2, decay="constant")


def small_resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ResNetConfig(width=0.05).build((1, 16, 16), 3)


@pytest.mark.parametrize("tau", [0.3, 0.9])
def test_the_average_is_the_weighted_sum_of_all_weights_so_far(tau: float) -> None:
    """By the closed form: w_0 * prod(tau_n) + sum_n (1 - tau_n) * w_n * prod of the later tau."""
    model = nn.Linear(3, 2)
    average, seen = WeightAverage(tau, model), [clones(list(model.parameters()))]
    taus = []
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng(step)))
        average.update(model)
        seen.append(clones(list(model.parameters())))
        taus.append(min(tau, (1 + step) / (10 + step)))
    assert len(set(taus)) > 1 or tau == 0.3 or pytest.fail("the ramp never mattered")
    factors = [1.0, *(1 - tau_n for tau_n in taus)]
    for later in range(len(taus)):
        factors[: later + 1] = [factor * taus[later] for factor in factors[: later + 1]]
    assert sum(factors) == pytest.approx(1)
    for i, mean in enumerate(average.means):
        expected = sum(factor * weight[i] for factor, weight in zip(factors, seen, strict=True))
        assert torch.allclose(mean, expected, atol=1e-6)


def test_the_final_weights_are_the_projected_average_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching(GlobalL0):
        def after_step(self, state: TrainState) -> None:
            super().after_step(state)
            seen.append(clones(list(state.model.parameters())))

    settings = loop.LoopSettings(PGD(0.1, steps=1), "last", 0.8)
    monkeypatch.setattr(loop, "LoopSettings", lambda *_: settings)
    model = two_layers()
    start = clones(list(model.parameters()))
    compressor = Watching(0.05)
    result = train_stage(Stage("sparse", Natural(), STEADY, compressor), train_state(model, epochs=3), tmp_path)
    k = int(0.05 * sum(w.numel() for w in (start[0], start[2])))
    first = torch.cat([start[0].abs().flatten(), start[2].abs().flatten()]).sort(descending=True).values[k - 1]
    means = [torch.where(w.abs() >= first, w, 0.0) if w.dim() > 1 else w for w in start]
    for step, parameters in enumerate(seen, 1):
        tau = min(0.8, (1 + step) / (10 + step))
        means = [tau * mean + (1 - tau) * parameter for mean, parameter in zip(means, parameters, strict=True)]
    assert sum(int(means[i].count_nonzero()) for i in (0, 2)) > k, "the average of two supports must exceed the budget"
    threshold = torch.cat([means[0].abs().flatten(), means[2].abs().flatten()]).sort(descending=True).values[k - 1]
    for name, mean in zip(result.tensors, means, strict=True):
        expected = torch.where(mean.abs() >= threshold, mean, 0.0) if mean.dim() > 1 else mean
        assert torch.allclose(result.tensors[name], expected, atol=1e-6), name
    assert sum(int(result.tensors[name].count_nonzero()) for name in ("1.weight", "3.weight")) == k


def test_statistics_are_those_of_the_images_that_the_objective_passes() -> None:
    """Natural: the mean over clean training images. Half of the passes adversarial: the mean of both kinds."""
    norm = nn.BatchNorm2d(1, momentum=0.1)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(256, 3)).train()
    state = train_state(model, data=dataset(40), batch=8)
    images = state.data.train.images.float() / 255
    refresh_statistics(state, Natural())
    assert norm.running_mean.item() == pytest.approx(images.mean().item(), rel=1e-5)
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 5
    passes, forward = [], state.forward
    state.forward = lambda x: (passes.append(x.mean().item()), forward(x))[1]
    refresh_statistics(state, Adversarial(PGD(0.3, steps=1), 0.5))
    assert len(passes) == 2 + 10  # a first batch against stale statistics, which does not count
    assert norm.running_mean.item() == pytest.approx(sum(passes[2:]) / 10, rel=1e-5)
    assert norm.running_mean.item() != pytest.approx(images.mean().item(), rel=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_source_of_random_numbers_come_back(training: bool) -> None:
    """The very generator: a CUDA graph holds it, and dropout layers draw from it."""
    state = train_state(small_resnet().train(training), data=dataset(40))
    random = state.random
    refresh_statistics(state, Natural())
    assert state.random is random
    assert {module.training for module in state.model.modules()} == {training}


def test_every_batch_that_counts_is_attacked_on_a_network_with_statistics_of_its_own() -> None:
    """Not on one whose running mean is 0 and variance 1, which no attack would find worth the name."""
    torch.manual_seed(0)
    model = ResNetConfig(width=0.1).build((1, 16, 16), 3).train()
    state = train_state(model, data=dataset(80), batch=16, epochs=6)
    optimizer, objective, right = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), Natural(), []
    while state.step < state.total_steps:
        optimizer.zero_grad()
        objective.loss(state, *state.batch()).value.backward()
        optimizer.step()
        state.step += 1

    class Watched(Adversarial):
        def loss(self, state: TrainState, x: torch.Tensor, y: torch.Tensor) -> Loss:
            right.append((super().loss(state, x, y).robust / len(y)).item())
            return super().loss(state, x, y)

    for module in model.modules():  # as if of quite other weights
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    refresh_statistics(state, Watched(PGD(0.2, steps=5), 0.5))
    stale, *counted = right
    assert len(counted) == 5
    assert max(counted) < stale - 0.2


def test_training_goes_on_to_the_bit_after_a_look_at_the_final_weights() -> None:
    """Weights, running statistics, the mode, the batches to come and their random numbers."""
    histories = []
    for look in (False, True):
        model = small_resnet()
        state = train_state(model.train(), data=dataset(40), epochs=2)
        objective, compressor = Adversarial(PGD(0.1, steps=1)), GlobalL0(0.1)
        state.compression = compressor.start(state)
        average = WeightAverage(0.5, model)
        state.optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x, y = state.batch()
        objective.loss(state, x, y).value.backward()
        state.optimizer.step()
        average.update(model)
        state.step += 1
        if look:
            before = clones([*model.parameters(), *model.buffers()])
            with finalised(state, objective, compressor, average):
                now = [*model.parameters(), *model.buffers()]
                assert any(not torch.equal(a, b) for a, b in zip(before, now, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(before, [*model.parameters(), *model.buffers()], strict=True))
        assert model.training
        x, y = state.batch()
        histories.append([x, y, *state.attacked(objective.attack, x, y)])
    assert all(torch.equal(a, b) for a, b in zip(*histories, strict=True))


@pytest.mark.parametrize("moves", [False, True])
def test_statistics_are_refreshed_where_the_constraint_moves_the_weights(moves: bool) -> None:
    class Halving(Compressor):
        refreshes_statistics = moves

        def compressed(self, state: TrainState) -> dict[str, torch.Tensor]:
            return {name: weight / 2 for name, weight in super().compressed(state).items()}

    model = small_resnet()
    state = train_state(model, data=dataset(40))
    before = clones(list(model.buffers()))
    finalise(state, Natural(), Halving(), None)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True)]
    assert any(changed) == moves


CODEBOOKS = [PostTraining(2), QuantisedL0(0.5, 2)]


@pytest.mark.parametrize("compressor", CODEBOOKS, ids=lambda compressor: compressor.kind)
def test_after_a_codebook_the_statistics_are_those_of_the_quantised_network(compressor: Compressor) -> None:
    """Against the mean and the variance of what each batch brings to the batch norm; or stale, where that is asked."""
    for stale in (False, True):
        model = convolutional().train()
        randomise_batch_norm(model)
        state, norm = train_state(model, data=dataset(40)), model[2].bn
        before = norm.running_mean.clone(), norm.running_var.clone()
        chosen = replace(compressor, stale_statistics=stale)
        state.compression = chosen.start(state)
        finalise(state, Natural(), chosen, None)
        assert len(model[0].weight.unique()) <= 5
        with torch.no_grad():
            arriving = [model[2].conv(model[1](model[0](x))) for x, _ in state.samples(40)]
        means = torch.stack([batch.mean((0, 2, 3)) for batch in arriving]).mean(0)
        variances = torch.stack([batch.var((0, 2, 3)) for batch in arriving]).mean(0)
        expected = before if stale else (means, variances)
        assert torch.allclose(norm.running_mean, expected[0], atol=1e-6)
        assert torch.allclose(norm.running_var, expected[1], rtol=1e-4)
        assert not torch.allclose(means, before[0], atol=1e-2)


@pytest.mark.parametrize("compressor", CODEBOOKS, ids=lambda compressor: compressor.kind)
def test_without_batch_norm_a_codebook_is_the_same_to_the_bit(compressor: Compressor, tmp_path: Path) -> None:
    found = []
    for stale in (False, True):
        stage = Stage("quantised", Adversarial(PGD(0.1, steps=1)), STEADY, replace(compressor, stale_statistics=stale))
        state = train_state(two_layers(), data=dataset(40, val=10), epochs=3)
        found.append(train_stage(stage, state, tmp_path / str(stale)).tensors)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_stale_statistics_are_a_quirk_of_every_codebook() -> None:
    for chosen in (["method=atmc"], ["method=al0", "quantise.bits=8"]):
        for quirks, stale in (([], False), (["method.quirks=[stale_statistics]"], True)):
            assert compose_config([*chosen, *quirks]).stages()[-1].compressor.stale_statistics == stale


def test_few_images_are_enough_for_the_statistics() -> None:
    state = train_state(two_layers(), data=dataset(40), batch=8)
    assert [len(y) for _, y in state.samples(STATISTICS_IMAGES)] == [8] * 5
    assert [len(y) for _, y in state.samples(16)] == [8, 8]
    assert [len(y) for _, y in state.samples(1)] == [8]
    first, again = ([x for x, _ in state.samples(40)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    seen = torch.cat([y for _, y in state.samples(40)])
    assert torch.equal(seen.sort().values, state.data.train.labels.sort().values)


def test_an_average_is_what_is_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in training end ruined; their average of before is still good."""

    class Ruined(Compressor):
        def after_step(self, state: TrainState) -> None:
            if state.step == state.total_steps - 1:
                with torch.no_grad():
                    for weight in state.weights:
                        weight.zero_()

    original = loop.LoopSettings
    records = []
    for tau in (0.0, 0.5):
        monkeypatch.setattr(loop, "LoopSettings", lambda attack, selection, tau=tau: original(attack, selection, tau))
        state = train_state(two_layers(), data=dataset(40, val=30), batch=10, epochs=3)
        records.append(train_stage(Stage("dense", Natural(), STEADY, Ruined()), state, tmp_path / str(tau)).records[-1])
    assert records[0]["val_clean"] == pytest.approx(1 / 3)
    assert records[1]["val_clean"] > 0.9
