"""The figures that the papers print, as rows that a table can put beside its own.

`published.csv` holds one row a figure: 756 of them, from five sources.

    ATMC             Gui et al., NeurIPS 2019: Table 1; the main and the attack figure, read from the poster's vector
                     paths (error at most 0.01 point)
    DNR              Kundu et al., 2020: Tables 1 to 4
    ICCV19 ADMM      Ye et al., ICCV 2019: Tables 2 and 5, Figure 1, the VGG-16 pruning figure (digitised, 0.5 point)
    Marshall thesis  Tables 4.1, 4.2, C.1
    HYDRA            Sehwag et al., 2020: the table of the public README

Accuracies and errors are in percent. `compression` means what `compression_kind` says: size_fraction (compressed bits /
dense bits, codebooks included), parameter_fraction and parameter_density (non-zero / all weights), times_smaller (all /
non-zero weights), width (channel multipliers, no number). An empty `value` is a cell that the paper left blank or whose
figure is lost.
"""

import csv
from functools import cache
from importlib import resources
from typing import Any

from robcomp.errors import unknown

# (paper, the paper's name) -> the method here that trains the same thing. Names without an entry have no method here.
METHODS = {
    ("ATMC", "dense natural training"): "nat",
    ("ATMC", "DA"): "da",
    ("ATMC", "NAP"): "nap",
    ("ATMC", "AP"): "ap",
    ("ATMC", "AL0"): "al0",
    ("ATMC", "ATMC-32bits"): "atmc",
    ("ATMC", "ATMC-8bits"): "atmc",
    ("ATMC", "ALR"): "alr",
    ("DNR", "Unpruned-baseline"): "da",
    ("DNR", "DNR"): "dnr",
    ("DNR", "DNR with dynamic L2"): "dnr",
    ("DNR", "DNR without dynamic L2"): "dnr",  # method.rho=0
    ("DNR", "DNR-C"): "dnr_c",
    ("DNR", "ADMM"): "admm",
    ("DNR", "ADMM naive"): "admm",
    ("DNR", "L1 Lasso"): "l1",
    ("DNR", "SNIP"): "snip",
    ("DNR", "Sparse-learning"): "sparse_momentum",
    ("ICCV19 ADMM", "natural training"): "nat",
    ("ICCV19 ADMM", "adversarial training"): "da",
    ("ICCV19 ADMM", "concurrent adversarial training + ADMM pruning"): "admm",
    (
        "ICCV19 ADMM",
        "small net trained adversarially from the large net initialisation (lottery ticket)",
    ): "lottery",
    ("Marshall thesis", "dense natural training"): "nat",
    ("Marshall thesis", "dense adversarial (0.9 adv/0.1 nat)"): "da",
    ("Marshall thesis", "ADMM irregular + 0.9 adv/0.1 nat"): "admm_oneshot",
}


def figures(**where: Any) -> list[dict[str, Any]]:
    """The published rows whose columns equal `where`, e.g. figures(paper="ATMC", ours="al0", metric="pgd_accuracy").

    Each row holds the columns of published.csv (None where empty) and `ours`, the name of the method here or None;
    `method` stays the paper's own name. Raises UserError for a column that does not exist.
    """
    rows = _rows()
    for column in where:
        if column not in rows[0]:
            raise unknown("column of the published figures", column, rows[0])
    return [dict(row) for row in rows if all(row[column] == value for column, value in where.items())]


def columns() -> list[str]:
    """The columns of the published figures."""
    return list(_rows()[0])


def size_fraction(row: dict[str, Any]) -> float | None:
    """The size of a published model as a fraction of the dense one; None where the paper's measure allows no such."""
    if not isinstance(row["compression"], float) or row["compression_kind"] == "width":
        return None
    return 1 / row["compression"] if row["compression_kind"] == "times_smaller" else row["compression"]


@cache
def _rows() -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    rows = [{column: _value(cell) for column, cell in row.items()} for row in csv.DictReader(text.splitlines())]
    return [{**row, "ours": METHODS.get((str(row["paper"]), str(row["method"])))} for row in rows]


def _value(cell: str) -> float | bool | str | None:
    if cell in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[cell]
    try:
        return float(cell)
    except ValueError:
        return cell
