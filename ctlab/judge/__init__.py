"""Is it true, and is it better than chance? Comes in: truth and answers. Goes out: metrics with intervals, comparisons, audits of printed tables."""
