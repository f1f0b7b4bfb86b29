"""Masks: the studies of spleen, legs and liver, and any scan segmented. Comes in: cases or a scan. Goes out: runs and masks."""
