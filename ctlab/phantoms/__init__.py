"""Digital patients with every answer known. Comes in: a seed. Goes out: bodies, scans of them, cohorts and sets of cases in the layouts of the real ones."""
