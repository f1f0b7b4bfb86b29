"""Everything that is looked at. Comes in: volumes, runs, tables. Goes out: figures, the viewer, reports, the site."""
