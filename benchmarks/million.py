"""A file tree of a million instances: seconds and memory of cataloguing it, as it grows.

The tree is simulated: twenty drawn series of 100 files, hard-linked under other patients and numbers, so that the disk
is asked for a million files and holds two thousand. Each stage is a process of its own.

    python benchmarks/million.py FOLDER [--to reports/reference]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from full_size import measure, print_growth
from scans import link_series

DRAWN, SLICES, SIZES = 20, 100, (1250, 2500, 5000, 10_000)


def draw_series(folder):
    """Draw the series whose files are linked."""
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    for k in range(DRAWN):
        if not (folder / str(k)).is_dir():
            hu = np.random.default_rng(k).integers(-1000, 1000, (SLICES, 32, 32)).astype(np.int16)
            write_series(make_volume(hu, (5.0, 10.0, 10.0)), folder / str(k), patient_id=str(k))
    return [list((folder / str(k)).iterdir()) for k in range(DRAWN)]


def grow_tree(root, files, series):
    """Add series to a cohort until it has so many; two a patient."""
    for k in range(series):
        link_series(files[k % DRAWN], root / 'train_images' / str(10_000 + k // 2) / str(1_000_000 + k))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--to', type=Path, help='a folder for million.csv')
    asked = parser.parse_args()
    files, rows = draw_series(asked.folder / 'drawn'), []
    for series in SIZES:
        places = {k: asked.folder / k for k in ('root', 'out')} | {'work': asked.folder / f'work{series}'}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        if (places['work'] / 'catalogue').exists():
            sys.exit(f'{places["work"]}: there is a catalogue already; give another folder')
        grow_tree(places['root'], files, series)
        for stage in ('catalogue', 'catalogue again'):
            seconds, memory, written = measure(stage, places)
            rows.append((stage, series * SLICES, seconds, memory, written))
            print(f'{series * SLICES:9,d} files  {stage:<16}{seconds:8.1f} s{memory:7.0f} MB{written:8.1f} MB written')
    table = pd.DataFrame(rows, columns=['stage', 'files', 'seconds', 'memory MB', 'written MB']).round(2)
    print_growth(table, 'files')
    if asked.to:
        table.to_csv(asked.to / 'million.csv', index=False)


if __name__ == '__main__':
    main()
