"""Segment organs and bones: the segmentation studies and the organ model. Input: cases or a scan. Output: runs and masks."""
