"""Sparse natural training from scratch, rewired by momentum."""

from dataclasses import dataclass, replace

from robcomp.trainers.compressors.rewiring import Rewiring
from robcomp.trainers.method import METHODS
from robcomp.trainers.methods.dnr import CleanRewiring


@METHODS.register("sparse_momentum")
@dataclass
class SparseMomentum(CleanRewiring):
    """Sparse momentum (Dettmers and Zettlemoyer, 2019), from which DNR was made: DNR-C without the regulariser.

    As in its published code, a layer that is nearly full and has an above-average share of the momentum removes no more
    than the part that is masked out. Differs from it in DNR's linear decay of the rate, where the paper has a cosine.
    """

    rho: float = 0.0

    @property
    def rewiring(self) -> Rewiring:
        return replace(super().rewiring, spare=True)
