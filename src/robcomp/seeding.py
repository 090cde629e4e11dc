"""Random numbers keyed by what they are for, so that a stopped and resumed run draws the same ones."""

import hashlib

import torch


def generator(device: torch.device | str, *key: object) -> torch.Generator:
    """A generator on `device` whose stream depends on `key` alone, e.g. (seed, stage, epoch, step, "attack")."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
