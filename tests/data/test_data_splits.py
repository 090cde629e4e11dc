"""Which images are chosen: fixed, disjoint, nested and stratified."""

import numpy as np
import pytest

from robcomp.data.splits import chosen_for_test, first_of, stratified_order, train_and_held_out


@pytest.fixture
def skewed() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(4), [500, 300, 150, 50]))


def test_the_order_is_a_permutation_and_not_the_identity(skewed):
    order = stratified_order(skewed)
    assert sorted(order) == list(range(1000))
    assert np.abs(order - np.arange(1000)).mean() > 100


def test_the_order_is_fixed_for_all_versions():
    assert stratified_order(np.arange(12) % 3).tolist() == [6, 11, 4, 10, 2, 9, 8, 1, 3, 7, 0, 5]


def test_prefixes_of_equal_classes_are_exactly_balanced():
    labels = np.random.default_rng(1).permutation(np.arange(1000) % 10)
    order = stratified_order(labels)
    for size in (10, 50, 730):
        assert np.bincount(labels[order[:size]]).tolist() == [size // 10] * 10


def test_prefixes_of_unequal_classes_are_proportional(skewed):
    order = stratified_order(skewed)
    for size in (37, 200, 501, 999):
        share = np.bincount(skewed[order[:size]], minlength=4) / size * 1000
        assert np.abs(share - [500, 300, 150, 50]).max() * size / 1000 <= 2


def test_within_a_class_the_order_is_shuffled():
    labels = np.zeros(100, dtype=np.int64)
    assert stratified_order(labels).tolist() != list(range(100))


def test_classes_without_images_and_no_images_at_all():
    assert sorted(stratified_order(np.array([3, 3, 7]))) == [0, 1, 2]
    assert stratified_order(np.zeros(0, dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(("subset", "val"), [(None, 0), (None, 100), (400, 0), (400, 100), (1000, 999)])
def test_train_and_held_out_are_disjoint_ascending_and_as_many_as_asked(skewed, subset, val):
    train, held_out = train_and_held_out(skewed, subset, val)
    assert (len(train), len(held_out)) == ((subset or 1000) - val, val)
    assert not set(train) & set(held_out)
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_the_held_out_slice_does_not_depend_on_the_subset_and_subsets_are_nested(skewed):
    small, small_val = train_and_held_out(skewed, 300, 100)
    large, large_val = train_and_held_out(skewed, 600, 100)
    assert small_val.tolist() == large_val.tolist()
    assert set(small) < set(large)


def test_the_held_out_slice_is_stratified(skewed):
    _, held_out = train_and_held_out(skewed, None, 100)
    assert np.bincount(skewed[held_out]).tolist() == [50, 30, 15, 5]


def test_first_of_is_a_stratified_ascending_prefix(skewed):
    chosen = first_of(skewed, 20)
    assert np.bincount(skewed[chosen]).tolist() == [10, 6, 3, 1]
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.2, [100, 60, 30, 10]), (0.001, [1, 1, 1, 1]), (0.999, [499, 299, 149, 49])]
)
def test_a_fraction_of_each_class_is_chosen_for_testing(skewed, fraction, expected):
    chosen = chosen_for_test(skewed, fraction)
    assert chosen.dtype == bool
    assert np.bincount(skewed[chosen]).tolist() == expected


def test_a_larger_fraction_keeps_the_images_of_a_smaller_one(skewed):
    small, large = chosen_for_test(skewed, 0.1), chosen_for_test(skewed, 0.3)
    assert (large | ~small).all()
    assert np.flatnonzero(small).tolist() != np.arange(small.sum()).tolist()
