"""Reports of runs: their schema, how they are shown, curves, published figures, and the papers' tables rebuilt."""
