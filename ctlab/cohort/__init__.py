"""Prepare cohorts: labels, folds, cleaning, stacks, masks and cases. Input: a download. Output: prepared data for training."""
