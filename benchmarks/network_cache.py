"""Run TotalSegmentator over a cohort: network and libraries read once a worker (ours) or once a case (its own API).

The weights are random, in a network of 18 million numbers in TotalSegmentator's own layout: reading takes
as long as with real ones. The scans are small, so that what is measured is the reading and not the network.
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))

FEATURES, CASES = (32, 64, 128, 256, 320, 320), 3


def main():
    from clocks import note
    from totalseg_layout import network, write_weights

    from ctlab.cohort.masks import TotalSegmentator, clear_networks
    from ctlab.scans.volume import make_volume

    scan = make_volume(np.random.default_rng(0).normal(0, 60, (20, 32, 32)).astype(np.int16), (3.0, 3.0, 3.0))
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        net, labels = network(FEATURES)
        write_weights(home, net, labels, FEATURES)
        os.environ |= {'TOTALSEG_HOME_DIR': str(home / 'config'), 'TOTALSEG_WEIGHTS_PATH': str(home / 'weights')}
        seconds = {}
        TotalSegmentator(fast=True).segment(scan)  # warms up what both ways share
        for keep in (True, False):
            clear_networks()
            start = time.perf_counter()
            for _ in range(CASES):
                TotalSegmentator(fast=True, keep=keep).segment(scan)
            seconds[keep] = (time.perf_counter() - start) / CASES
    print(
        f'TotalSegmentator, {sum(p.numel() for p in net.parameters()) / 1e6:.0f} million random weights, {CASES} '
        f'scans of 20 × 32 × 32 voxels, one thread'
    )
    note('TotalSegmentator, a small scan of a cohort', seconds[True], 'its network read for every scan', seconds[False])
    print(f'read once per worker (ctlab)          {seconds[True]:6.2f} s per scan')
    print(
        f'read for every scan (its own way)     {seconds[False]:6.2f} s per scan, '
        f'{seconds[False] / seconds[True]:.1f}×; {seconds[False] - seconds[True]:.2f} s go into reading and imports'
    )


if __name__ == '__main__':
    main()
