"""Draw synthetic patients with known labels. Input: a seed. Output: bodies, scans, cohorts and segmentation sets in public layouts."""
