"""Random numbers keyed by what they are for, so that a stopped and resumed run draws the same ones."""

import hashlib

import torch


def seed_of(*key: object) -> int:
    """The 63-bit seed that belongs to `key`, e.g. (seed, stage, step, "attack")."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, *key: object) -> torch.Generator:
    """A generator on `device` whose stream depends on `key` alone."""
    return torch.Generator(device=device).manual_seed(seed_of(*key))
