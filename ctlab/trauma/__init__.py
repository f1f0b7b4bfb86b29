"""Injuries: six approaches, the start they begin from, the evidence behind a verdict. Comes in: a cohort. Goes out: runs and probabilities."""
