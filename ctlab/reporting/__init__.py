"""Show results: figures, the viewer, reports, verification, the site. Input: volumes, runs, tables. Output: pages and files."""
