"""The published figures: all there, their types, and spot checks against the papers."""

from collections import Counter

import pytest

from robcomp.errors import UserError
from robcomp.tables.published import figures, size_fraction


def test_all_figures_are_there():
    assert Counter(row["paper"] for row in figures()) == {
        "ATMC": 388,
        "DNR": 129,
        "ICCV19 ADMM": 99,
        "Marshall thesis": 84,
        "HYDRA": 56,
    }


@pytest.mark.parametrize(
    ("ours", "metric", "ratio", "value"),
    [
        ("al0", "pgd_accuracy", 0.0015, 58.7),
        ("al0", "pgd_accuracy", 0.006, 70.2),
        ("ap", "pgd_accuracy", 0.0015, 52.7),
        ("ap", "pgd_accuracy", 0.006, 65.8),
        ("nap", "benign_accuracy", 0.006, 97.96),
        ("atmc", "pgd_accuracy", 0.0015, 60.46),
    ],
)
def test_atmc_on_mnist(ours, metric, ratio, value):
    (row,) = figures(paper="ATMC", dataset="MNIST", ours=ours, metric=metric, prune_ratio=ratio)
    assert row["value"] == pytest.approx(value, abs=0.05)


def test_every_kind_of_cell_is_read_as_what_it_is():
    table = {"paper": "ATMC", "table": "Table 1", "dataset": "SVHN"}
    assert figures(**table, metric="parameters_exact")[0]["value"] == 10954160
    assert figures(**table, metric="parameters_printed")[0]["value"] == "11M"
    assert figures(paper="DNR", method="DNR", metric="target_pruning_met")[0]["value"] is True
    assert figures(paper="DNR", method="SNIP", metric="speedup")[0]["value"] is None
    assert figures(**table)[0]["prune_ratio"] is None


def test_the_papers_names_stay_beside_ours():
    assert {row["method"] for row in figures(paper="ATMC", ours="atmc")} == {"ATMC-32bits", "ATMC-8bits"}
    assert {row["ours"] for row in figures(paper="HYDRA")} == {None}


def test_a_row_may_be_changed_without_harm():
    figures()[0]["value"] = "changed"
    assert figures()[0]["value"] == "430K"


def test_an_unknown_column_is_named():
    with pytest.raises(UserError, match=r"unknown column of the published figures 'papr'.*Did you mean paper"):
        figures(papr="ATMC")


def test_compression_as_a_size_fraction():
    assert size_fraction({"compression": 20.0, "compression_kind": "times_smaller"}) == 0.05
    assert size_fraction({"compression": 0.01, "compression_kind": "parameter_fraction"}) == 0.01
    assert size_fraction({"compression": "w16->w8", "compression_kind": "width"}) is None
