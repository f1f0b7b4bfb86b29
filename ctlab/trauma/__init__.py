"""Classify abdominal injuries: approaches 1 to 7, pretraining, saliency, prediction. Input: a cohort. Output: runs and probabilities."""
