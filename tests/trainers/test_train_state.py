"""Batches: every image once an epoch, in an order and with an augmentation that only (seed, stage, step) decide."""

import pytest
import torch
from tiny import CLASSES, SHAPE, dataset, train_state, two_layers
from torch import Tensor

from robcomp.data import to_float
from robcomp.models.wideresnet import WideResNetConfig
from robcomp.seeding import generator, seed_of
from robcomp.trainers.state import TrainState

IMAGES, BATCH, STEPS = 43, 8, 5  # three images are left over in each epoch


def make(**settings: object) -> TrainState:
    return train_state(two_layers(), data=dataset(train=IMAGES), batch=BATCH, epochs=3, **settings)


def batches(state: TrainState, first: int = 0, last: int = 3 * STEPS) -> list[tuple[Tensor, Tensor]]:
    result = []
    for state.step in range(first, last):
        result.append(state.batch())
    return result


def places(state: TrainState, batch: Tensor) -> list[int]:
    """Which training images these are."""
    every = to_float(state.data.train.images)
    return [int((every == image).flatten(1).all(1).nonzero()) for image in batch]


def test_steps_and_epochs() -> None:
    state = make()
    assert (state.steps_per_epoch, state.total_steps) == (STEPS, 3 * STEPS)
    state.step = 2 * STEPS + 1
    assert (state.epoch, state.step_in_epoch) == (2, 1)


def test_every_image_once_an_epoch_but_for_the_remainder() -> None:
    state = make()
    seen = [places(state, x) for x, _ in batches(state)]
    epochs = [[place for step in seen[e * STEPS : (e + 1) * STEPS] for place in step] for e in range(3)]
    for order in epochs:
        assert len(order) == len(set(order)) == STEPS * BATCH
    assert len({tuple(order) for order in epochs}) == 3
    assert set().union(*epochs) == set(range(IMAGES)), "what is left over in one epoch comes in another"


def test_images_come_with_their_labels() -> None:
    state = make()
    for x, y in batches(state):
        assert torch.equal(y, state.data.train.labels[places(state, x)])
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    state = train_state(two_layers(), data=dataset(train=5), batch=64)
    assert (state.batch_size, state.steps_per_epoch) == (5, 1)
    assert len(state.batch()[1]) == 5


@pytest.mark.parametrize("first", [1, STEPS - 1, STEPS, STEPS + 2])
def test_resumed_anywhere_the_batches_are_the_same(first: int) -> None:
    whole, resumed = make(pad=2, flip=True), make(pad=2, flip=True)
    torch.manual_seed(123)  # the global generator has no say
    for (a, b), (c, d) in zip(batches(whole)[first:], batches(resumed, first), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": "dense"}])
def test_seed_and_stage_decide_the_order(change: dict) -> None:
    assert not torch.equal(make().batch()[1], make(**change).batch()[1])


@pytest.mark.parametrize(
    "augmentation", [{"pad": 2}, {"pad": 2, "pad_mode": "reflect"}, {"flip": True}, {"rotate": 45.0}]
)
def test_augmentation_is_drawn_anew_each_step(augmentation: dict) -> None:
    """With one image there is one order, so that whatever differs is the augmentation."""
    state = train_state(two_layers(), data=dataset(train=1), batch=1, epochs=12, **augmentation)
    drawn = [x for x, _ in batches(state, 0, 12)]
    assert len({x.numpy().tobytes() for x in drawn}) > 1
    other = train_state(two_layers(), data=dataset(train=1), batch=1, epochs=12, seed=1, **augmentation)
    assert any(not torch.equal(a, b) for a, (b, _) in zip(drawn, batches(other, 0, 12), strict=True))


def test_every_setting_of_the_augmentation_reaches_it() -> None:
    """Images without black: beyond the border zero padding shows black and reflection does not, turned or shifted."""
    for how in ({"pad": 3}, {"rotate": 45.0}):
        black = {}
        for pad_mode in ("zero", "reflect"):
            data = dataset(train=8)
            data.train.images.clamp_(min=20)
            state = train_state(two_layers(), data=data, pad_mode=pad_mode, **how)
            black[pad_mode] = bool((state.batch()[0] == 0).any())
        assert black == {"zero": True, "reflect": False}


def test_dropout_draws_anew_each_step_and_the_same_after_a_stop() -> None:
    """In the network as it trains; the attack draws before it, from the same stream."""
    torch.manual_seed(0)
    model = WideResNetConfig(depth=10, width=0.1, dropout=0.5).build(SHAPE, CLASSES)

    def logits(*steps: int) -> list[Tensor]:
        state, result = train_state(model, data=dataset(train=8), epochs=4), []
        state.model.train()
        torch.manual_seed(len(steps))  # the global generator has no say
        for state.step in steps:
            state.batch()
            result.append(state.forward(x).detach())
        return result

    x = torch.rand(8, *SHAPE)
    whole = logits(0, 1, 2)
    assert not torch.equal(whole[0], whole[1])
    (resumed,) = logits(1)
    assert torch.equal(resumed, whole[1])


def test_without_augmentation_images_stay_as_they_are() -> None:
    state = train_state(two_layers(), data=dataset(train=1), batch=1, epochs=4)
    assert all(torch.equal(x, to_float(state.data.train.images)) for x, _ in batches(state, 0, 4))


def test_the_attack_draws_anew_each_step_and_the_same_after_a_stop() -> None:
    def draws(state: TrainState, *steps: int) -> list[float]:
        result = []
        for state.step in steps:
            state.batch()
            result.append(torch.rand((), generator=state.random).item())
        return result

    ours = draws(make(), 0, 1, 2)
    assert len(set(ours)) == 3
    assert draws(make(), 2, 1) == [ours[2], ours[1]]
    assert draws(make(seed=1), 0)[0] not in ours
    assert draws(make(stage="dense"), 0)[0] not in ours


def test_every_part_of_a_key_matters() -> None:
    keys = [
        (0, "dense", 1, "attack"),
        (1, "dense", 1, "attack"),
        (0, "sparse", 1, "attack"),
        (0, "dense", 2, "attack"),
        (0, "dense", 1, "augment"),
        (0, "dense", 11, "attack"),
        (0, "dense", "1", "attack"),
    ]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert all(0 <= seed_of(*key) < 2**63 for key in keys)
    draw = [torch.rand(3, generator=generator("cpu", *keys[0])) for _ in range(2)]
    assert torch.equal(*draw)
