"""Train networks and run inference. Input: stacks and cases. Output: samples, weights, probabilities."""
