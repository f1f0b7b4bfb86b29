"""Prepared arrays become trained networks, and networks answers. Comes in: stacks and cases. Goes out: samples, weights, probabilities."""
