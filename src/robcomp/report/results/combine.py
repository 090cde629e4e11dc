"""What `robcomp combine` writes."""

from dataclasses import dataclass
from typing import ClassVar

from robcomp.report.accuracy import Proportion, Settings
from robcomp.report.records import meaning
from robcomp.report.results.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class CombinationRow(Proportion):
    """The accuracy of a run or of the combination, under an attack."""

    attack: str = meaning("name of the attack in the suite; `clean`; `worst_case` over all but the excluded")
    way: str = meaning("`clean`, `alone`, `through` a member, `adaptive`, or `worst` over all ways")
    run: str = meaning("label of the run, or `combined`")
    said: str = meaning("network and way in words")


@dataclass(frozen=True, kw_only=True)
class CombineResult(Analysis):
    """`robcomp combine`: several networks as one, attacked through each member and as a whole."""

    SCHEMA: ClassVar[str] = "robcomp-combine/1"

    attacks: dict[str, Settings] = meaning("the settings of each attack of the suite")
    note: str = meaning("which of the figures counts")
    rows: list[CombinationRow] = meaning("attack by attack")
