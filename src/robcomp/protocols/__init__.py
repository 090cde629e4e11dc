"""Protocols over finished runs: curves over a rising budget, transfer, combined networks, image-by-image comparison."""
