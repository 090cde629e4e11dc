"""What a run hands over: the compressed file `model.rcz`, whose bytes are the honest size of the network."""

from robcomp.artifact.format import dense_bytes, section_bytes
from robcomp.artifact.network import NetworkSpec, is_packed, load, save

__all__ = ["NetworkSpec", "dense_bytes", "is_packed", "load", "save", "section_bytes"]
