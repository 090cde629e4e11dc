"""Several runs: in which order, in how many processes, and what they will cost."""
