"""Evaluate predictions and audit tables. Input: references and predictions. Output: metrics with intervals, comparisons, audits."""
