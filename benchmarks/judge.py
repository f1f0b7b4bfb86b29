"""Judging masks: the lab beside DeepMind's surface-distance and MONAI, on the same cases of 512 x 512 x 300."""

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from clocks import note

from ctlab.judge.segmentation import MaskOptions, case_rows
from ctlab.scans import nifti
from ctlab.scans.volume import make_volume

SPACING = (1.5, 0.8, 0.8)
NAMES = {1: 'liver', 2: 'spleen', 3: 'kidney'}
CENTRES = {1: ((150, 250, 170), (62, 105, 110)), 2: ((180, 270, 380), (30, 45, 40)), 3: ((110, 300, 340), (40, 35, 33))}


def organs(seed, shape):
    """Draw three wavy organs of usual size."""
    rng, labels = np.random.default_rng(seed), np.zeros(shape, np.uint8)
    grid = np.ogrid[tuple(map(slice, shape))]
    for number, (centre, radii) in CENTRES.items():
        away = sum(((a - c * n / m - rng.normal(0, 2)) / (r * n / m)) ** 2
                   for a, c, r, n, m in zip(grid, centre, radii, shape, (300, 512, 512)))  # fmt: skip
        wave = 0.12 * np.sin(grid[0] / 9 + rng.uniform(0, 6)) * np.cos(grid[2] / 13 + rng.uniform(0, 6))
        labels[np.sqrt(away) + wave < 1] = number
    return labels


def peer_surface_distance(pred, true):
    """Compute what the lab computes with DeepMind's package."""
    import surface_distance as sd

    for k in NAMES:
        found = sd.compute_surface_distances(true == k, pred == k, SPACING)
        sd.compute_surface_dice_at_tolerance(found, 1.0)
        sd.compute_robust_hausdorff(found, 95)
        sd.compute_average_surface_distance(found)
        sd.compute_dice_coefficient(true == k, pred == k)


def peer_monai(pred, true):
    """Compute what the lab computes with MONAI."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    both = [torch.from_numpy(np.stack([m == k for k in NAMES])[None]).float() for m in (pred, true)]
    compute_dice(*both)
    compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=SPACING)
    compute_average_surface_distance(*both, include_background=True, symmetric=True, spacing=SPACING)
    compute_surface_dice(*both, class_thresholds=[1.0] * 3, include_background=True, spacing=SPACING)


def peak_gigabytes():
    """Return the most memory that this process or one of its children held."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 2**20


def main():
    """Print a table of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', type=int, default=6)
    parser.add_argument('--peers', type=int, default=0, help='cases for the peers; 0 for all')
    parser.add_argument('--shape', type=int, nargs=3, default=(300, 512, 512))
    asked = parser.parse_args()
    peer_cases = min(asked.peers or asked.cases, asked.cases)
    folder, rows = Path(tempfile.mkdtemp()), []
    for side, shift in (('ours', 1), ('truth', 0)):
        (folder / side).mkdir()
        for k in range(asked.cases):
            volume = make_volume(np.roll(organs(k, tuple(asked.shape)), shift, 2), SPACING)
            nifti.write(replace(volume, meta={'names': NAMES}), folder / side / f'{k}.nii.gz')
    for name, workers in (('ctlab, one process', 1), ('ctlab, a process a core', 0)):
        began = time.perf_counter()
        table = case_rows(folder / 'ours', folder / 'truth', MaskOptions(workers=workers))[0]
        rows.append((name, asked.cases, time.perf_counter() - began))
        print(f'{name}: peak memory so far {peak_gigabytes():.2f} GB')
    assert len(table) == 3 * asked.cases
    for name, peer in (('surface-distance', peer_surface_distance), ('MONAI', peer_monai)):
        began = time.perf_counter()
        for k in range(peer_cases):
            peer(*(nifti.read(folder / side / f'{k}.nii.gz').array for side in ('ours', 'truth')))
        rows.append((name, peer_cases, time.perf_counter() - began))
    found = pd.DataFrame(rows, columns=['what', 'cases', 'seconds'])
    found['seconds a case'] = found['seconds'] / found['cases']
    for name, each in zip(found['what'][2:], found['seconds a case'][2:]):
        note('judge three organs of 512 x 512 x 300, reading included', found['seconds a case'][0], name, each)
    found['times as long as ctlab'] = found['seconds a case'] / found['seconds a case'].iloc[0]
    print(found.round(2).to_string(index=False))
    print(f'cases of {tuple(asked.shape)}, reading included; peak memory with the peers {peak_gigabytes():.1f} GB')


if __name__ == '__main__':
    main()
