"""TotalSegmentator itself, with a network of the right kind that fits in a test.

The weights folder is laid out as the program expects (task 297, the 3 mm network, 118 outputs). The network is a real
nnU-Net of two stages whose few weights are set by hand so that its answer is known: liver where the picture is
brighter than its average, spleen elsewhere.
"""

import json

import numpy as np
import pytest
from totalseg_layout import network, write_weights

from ctlab.cohort.masks import MaskStacks, TotalSegmentator, clear_networks, make_mask_stacks
from ctlab.core.anatomy import STRUCTURE_CODES
from ctlab.scans.volume import make_volume, reorient


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Make a weights folder that TotalSegmentator accepts."""
    import torch

    home, features = tmp_path_factory.mktemp('totalseg'), (2, 2)
    net, labels = network(features)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        for module in net.modules():
            if isinstance(module, torch.nn.InstanceNorm3d):
                module.weight.fill_(1.0)
        net.encoder.stages[0][0].convs[0].conv.weight[:, 0, 1, 1, 1] = torch.tensor([1.0, -1.0])
        decoder = net.decoder.stages[0].convs[0].conv.weight
        decoder[0, 2, 1, 1, 1] = decoder[1, 3, 1, 1, 1] = 1.0  # the skipped features, not those from below
        net.decoder.seg_layers[-1].weight[labels['liver'], 0] = net.decoder.seg_layers[-1].weight[
            labels['spleen'], 1
        ] = 1.0
        net.decoder.seg_layers[-1].bias.fill_(-50.0)
        net.decoder.seg_layers[-1].bias[[labels['liver'], labels['spleen']]] = 0.0
    write_weights(home, net, labels, features)
    patch = pytest.MonkeyPatch()
    patch.setenv('TOTALSEG_HOME_DIR', str(home / 'config'))
    patch.setenv('TOTALSEG_WEIGHTS_PATH', str(home / 'weights'))
    yield home
    clear_networks()
    patch.undo()


@pytest.fixture
def scan():
    """Make a dark block with one bright corner, on a grid that is neither cubic nor axis-aligned."""
    array = np.full((20, 40, 44), -100, np.int16)
    array[12:, :20, 24:] = 300
    return reorient(make_volume(array, (5.0, 3.0, 3.0), (-60, 40, 100)), 'RAS')


def test_the_answer_lies_where_the_picture_is_and_carries_our_names(weights, scan):
    found = TotalSegmentator(fast=True).segment(scan)
    assert found.shape == scan.shape and np.allclose(found.affine, scan.affine, atol=1e-3)
    assert set(np.unique(found.array)) <= {0, STRUCTURE_CODES['liver'], STRUCTURE_CODES['spleen']}
    bright = scan.array > 0
    agree = ((found.array == STRUCTURE_CODES['liver']) == bright).mean()
    assert agree > 0.97, agree  # the program works on a 3 mm grid, so the edge may move by a voxel


def test_nothing_is_sent(weights, scan, monkeypatch):
    import requests

    def refuse(*a, **k):
        raise AssertionError('something was sent')

    monkeypatch.setattr(requests, 'post', refuse)
    TotalSegmentator(fast=True).segment(scan)
    config = json.loads((weights / 'config' / 'config.json').read_text())
    assert config['send_usage_stats'] is False


def test_the_network_is_read_once_per_worker(weights, scan, monkeypatch):
    import torch

    reads, load = [], torch.load
    monkeypatch.setattr(torch, 'load', lambda *a, **k: (reads.append(str(a[0])), load(*a, **k))[1])
    clear_networks()
    for _ in range(2):
        kept = TotalSegmentator(fast=True).segment(scan)
    assert sum('checkpoint_final' in r for r in reads) == 1
    clear_networks()
    fresh = TotalSegmentator(fast=True, keep=False).segment(scan)
    assert sum('checkpoint_final' in r for r in reads) == 2
    kept = TotalSegmentator(fast=True).segment(scan)
    assert sum('checkpoint_final' in r for r in reads) == 3, 'what is not kept is gone'
    assert np.array_equal(kept.array, fresh.array)


def test_a_cohort_of_masks_resumes(weights, scan, tmp_path):
    from ctlab.cohort.stacks import StackPreprocessing, prepare
    from ctlab.scans.dicom import write_series

    root = tmp_path / 'cohort'
    for k in range(2):
        write_series(reorient(scan, 'LPS'), root / 'train_images' / str(k + 1) / str(k + 11), str(k))
    stacks = prepare(root, tmp_path / 'work', StackPreprocessing(5.0, 32), progress=False)
    first = make_mask_stacks(root, tmp_path / 'work', stacks, (TotalSegmentator(fast=True),), workers=1, progress=False)
    assert isinstance(first, MaskStacks) and first.usable == {11, 12}
    stamps = {p: p.stat().st_mtime_ns for p in first.folder.rglob('*.npy')}
    again = make_mask_stacks(root, tmp_path / 'work', stacks, (TotalSegmentator(fast=True),), workers=1, progress=False)
    assert {p: p.stat().st_mtime_ns for p in again.folder.rglob('*.npy')} == stamps
    mask, stack = again.load(11), stacks.load(11)
    assert mask.shape == stack.shape and ((mask == STRUCTURE_CODES['liver']) == (np.array(stack) > 200)).mean() > 0.95


def test_without_weights_the_next_provider_is_asked(tiny, tmp_path, monkeypatch, caplog):
    from ctlab.cohort.masks import MaskUnavailableError, RsnaMasks
    from ctlab.cohort.stacks import StackPreprocessing, prepare

    monkeypatch.setenv('TOTALSEG_WEIGHTS_PATH', str(tmp_path / 'nothing'))
    stacks = prepare(tiny, tmp_path / 'work', StackPreprocessing(5.0, 24), progress=False)
    masks = make_mask_stacks(
        tiny, tmp_path / 'work', stacks, (TotalSegmentator(fast=True), RsnaMasks(str(tiny))), progress=False
    )
    assert set(masks.table['provider']) == {'disk'}
    with pytest.raises(MaskUnavailableError, match='TOTALSEG_WEIGHTS_PATH'):
        make_mask_stacks(tiny, tmp_path / 'work', stacks, (TotalSegmentator(fast=True),), progress=False)
