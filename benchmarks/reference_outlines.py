"""Score the organ model on four real scans with a layman's outlines (data/reference_outlines).

Only outlined slices count. Beside each Dice stands what the model expected of itself before it knew the truth.

    python benchmarks/reference_outlines.py SCANS [SERIES] [--weights own.safetensors] [--out reports/reference]

SCANS is the folder with petct_trunk.nii.gz, chest_crc.nii.gz and chest_lidc.nii.gz; SERIES the DICOM folder of the
contrast slab, example_ct_dicom.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

OUTLINES = Path(__file__).parent.parent / 'data' / 'reference_outlines'


class Score(NamedTuple):
    """How well a structure was found in a scan, on the outlined slices."""

    scan: str
    structure: str
    Dice: float
    drawn_ml: float
    found_ml: float
    expected: float  # the Dice that the model expected, and its interval
    expected_low: float
    expected_high: float
    said: str  # fit, unfit, or no mask


def score_scan(name, scan, net=None):
    """Score the judged structures of a scan."""
    from ctlab.judge.metrics import dice
    from ctlab.organs.expected_dice import ExpectedDice
    from ctlab.organs.organ_model import segment_organs
    from ctlab.scans.label_maps import read_masks
    from ctlab.scans.volume import reorient

    drawn = read_masks(OUTLINES / f'{name}.nii.gz')
    notes = json.loads((OUTLINES / 'outlines.json').read_text())[name]
    found = segment_organs(scan, net, trunk=True)
    true, mine = (reorient(v).array[notes['slices']] for v in (drawn.layers[0], found))
    voxel, unknown, scores = np.prod(scan.spacing) / 1000, ExpectedDice(np.nan, np.nan, np.nan), []
    for structure in notes['judged']:
        truth, mask = true == drawn.places[structure][1], mine == found.meta['structures'].index(structure) + 1
        e = found.meta['expected'].get(structure, unknown)
        said = 'no mask' if not mask.any() else 'unfit' if e.unfit else 'fit'
        volumes = (round(m.sum() * voxel, 1) for m in (truth, mask))
        expected = (round(v, 2) for v in (e.dice, e.low, e.high))
        scores.append(Score(name, structure, round(dice(mask, truth), 3), *volumes, *expected, said))
    return pd.DataFrame(scores)


def main():
    import ctlab
    from ctlab.organs.organ_model import load_organ_network

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scans', type=Path)
    parser.add_argument('series', type=Path, nargs='?')
    parser.add_argument('--only', nargs='*', help='names of the scans to score; all when left out')
    parser.add_argument('--weights', help='other weights than the shipped ones')
    parser.add_argument('--out', type=Path, help='folder for reference_outlines.csv')
    options = parser.parse_args()
    net = load_organ_network(options.weights) if options.weights else None
    places = {n: options.scans / f'{n}.nii.gz' for n in ('petct_trunk', 'chest_crc', 'chest_lidc')}
    places |= {'example_ct_dicom': options.series} if options.series else {}
    wanted = [n for n in places if not options.only or n in options.only]
    table = pd.concat([score_scan(n, ctlab.read(places[n]), net) for n in wanted], ignore_index=True)
    print(table.to_string(index=False))
    if options.out:
        table.to_csv(options.out / 'reference_outlines.csv', index=False)


if __name__ == '__main__':
    main()
