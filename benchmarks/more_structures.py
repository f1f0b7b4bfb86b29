"""Score the structures beside the six organs on the public patient, beside TotalSegmentator's published masks.

    python benchmarks/more_structures.py [--out reports/reference]

Needs TotalSegmentator's public test scan (CTLAB_REAL_DATA) with its folder of one mask for each of 104 structures.
Prints a table of Dice: the whole scan, the half that was looked at while the rules were made, and the other half; and
how far the height that is taken for the third lumbar vertebra lies from its middle.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ctlab.core.settings import real_data_folder
from ctlab.judge.metrics import dice
from ctlab.organs.more_structures import EXTRA_ORGANS, STRUCTURES, segment_structures
from ctlab.organs.organ_model import development_half
from ctlab.scans.io import read
from ctlab.scans.volume import to_patient

BONES = ('rib_', 'hip_', 'femur_', 'humerus_', 'scapula_', 'clavicula_')
PARTS = {
    **{n: (n,) for n in EXTRA_ORGANS if n != 'heart'},
    'lung': ('lung_',),
    'spine': ('vertebrae_', 'sacrum'),
    'bone': BONES,
    'spine and bone': (*BONES, 'vertebrae_', 'sacrum'),
    'muscle of back, hip and buttocks': ('autochthon_', 'iliopsoas_', 'gluteus_'),
}  # structure -> how the names of its published masks begin


def main():
    """Segment, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, help='folder for more-structures.csv')
    asked, folder = parser.parse_args(), real_data_folder()
    scan = read(folder / 'example_ct.nii.gz')
    found, seen = segment_structures(scan), development_half(len(scan.array))
    rows = []
    for name, beginnings in PARTS.items():
        files = [p for p in sorted((folder / 'example_seg_full').glob('*.nii.gz')) if p.name.startswith(beginnings)]
        truth = np.any([read(p).array > 0 for p in files], axis=0)
        words = {'spine and bone': ('spine', 'bone')}.get(name, (name.split(' of ')[0],))
        mine = np.isin(found.array, [1 + STRUCTURES.index(n) for n in words])
        voxel = np.prod(scan.spacing) / 1000
        row = {'structure': name, 'mL': mine.sum() * voxel, 'true mL': truth.sum() * voxel}
        if ' of ' in name:  # these masks are a part of all muscle
            row |= {'found': (mine & truth).sum() / truth.sum()}
        else:
            row |= {'Dice': dice(mine, truth), 'seen half': dice(mine[seen], truth[seen])}
            row |= {'other half': dice(mine[~seen], truth[~seen])}
        expected = found.meta['expected'].get(name)
        rows.append(row | ({'expected': expected.dice} if expected else {}))
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    vertebra = np.argwhere(read(folder / 'example_seg_full' / 'vertebrae_L3.nii.gz').array > 0).mean(0)
    height = found.meta['composition'].height_mm
    print(f'height of L3: {height - to_patient(scan, vertebra)[2]:+.1f} mm from the middle of the vertebra')
    print(found.meta['composition'])
    if asked.out:
        table.to_csv(asked.out / 'more-structures.csv', index=False)


if __name__ == '__main__':
    main()
