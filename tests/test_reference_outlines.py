"""The outlines that were drawn in real scans: masks and strokes say the same."""

import json

import numpy as np
import pytest
from conftest import ROOT
from scipy.ndimage import binary_dilation
from skimage.draw import polygon2mask

from ctlab.scans.label_maps import read_masks
from ctlab.scans.volume import reorient

OUTLINES = ROOT / 'data' / 'reference_outlines'
NOTES = json.loads((OUTLINES / 'outlines.json').read_text())


@pytest.mark.parametrize('name', NOTES)
def test_masks_lie_within_their_strokes(name):
    masks, notes = read_masks(OUTLINES / f'{name}.nii.gz'), NOTES[name]
    numbers = reorient(masks.layers[0]).array
    assert np.flatnonzero(numbers.any((1, 2))).tolist() == notes['slices'] == sorted(map(int, notes['outlines']))
    assert set(notes['judged']) <= set(masks.names)
    for k, outlines in notes['outlines'].items():
        drawn = {}
        for stroke, corners in outlines.items():
            where = polygon2mask(numbers.shape[1:], np.array(corners))
            drawn[stroke.split()[0]] = drawn.get(stroke.split()[0], False) | where
        for structure, where in drawn.items():
            mask = numbers[int(k)] == masks.places[structure][1]
            assert mask.any() and not (mask & ~binary_dilation(where, iterations=2)).any(), (k, structure)
        others = set(masks.names) - set(drawn)
        assert not any((numbers[int(k)] == masks.places[o][1]).any() for o in others), 'what was not drawn is not there'


def test_two_drawings_agree():
    """Compare the outlines of three slices that were drawn twice."""
    twice = {'liver': [], 'spleen': [], 'kidney_left': [], 'kidney_right': [], 'aorta': []}
    for k, outlines in NOTES['petct_trunk']['outlines again'].items():
        for structure, corners in outlines.items():
            pair = [
                polygon2mask((256, 256), np.array(c)) for c in (corners, NOTES['petct_trunk']['outlines'][k][structure])
            ]
            twice[structure].append((2 * (pair[0] & pair[1]).sum(), pair[0].sum() + pair[1].sum()))
    dice = {s: np.sum(v, axis=0)[0] / np.sum(v, axis=0)[1] for s, v in twice.items()}
    assert min(dice[s] for s in ('liver', 'spleen', 'kidney_left', 'kidney_right')) > 0.94 and dice['aorta'] > 0.88, (
        dice
    )
