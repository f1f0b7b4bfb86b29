"""Segmentation studies as an engineer runs them, and the command that draws masks."""

import json

import numpy as np
import pandas as pd
import pydicom
import pytest

from ctlab.scans import nifti
from ctlab.scans.dicom import write_series


def small_scan():
    """Draw a body's abdomen and scan it coarsely."""
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body

    protocol = ScanProtocol(spacing=5.0, thickness=5.0, start=180, stop=360, matrix=80, field_of_view=400)
    return acquire(draw_body(3, 4.0), protocol, 3)[0]


@pytest.fixture(scope='module')
def runs(ctlab, tmp_path_factory):
    """Two folds of a tiny study by papermill."""
    out = tmp_path_factory.mktemp('masks')
    ended = ctlab(
        'run',
        '10_liver2d',
        '--folds',
        '0,1',
        '--jobs',
        2,
        '--out',
        out / 'notebooks',
        '-p',
        'out_dir',
        out / 'runs',
        '-p',
        'epochs',
        1,
        env={'OMP_NUM_THREADS': '1'},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out / 'runs'


def test_folds_hold_out_other_patients_and_are_reported(ctlab, runs):
    scores = [
        pd.read_parquet(runs / 'liver2d' / 'tiny' / f'fold{k}' / 'predictions.parquet').query("split == 'test'")
        for k in (0, 1)
    ]
    assert not set(scores[0]['case']) & set(scores[1]['case'])
    split = json.loads((runs / 'liver2d' / 'tiny' / 'fold0' / 'config.json').read_text())['split']
    assert not set(split['test']) & set(split['train'] + split['valid']) and not set(split['train']) & set(
        split['valid']
    )
    metrics = pd.read_csv(runs / 'liver2d' / 'tiny' / 'fold0' / 'metrics.csv')
    assert list(metrics.columns) == ['study', 'fold', 'target', 'split', 'metric', 'value', 'low', 'high', 'n']
    ended = ctlab('report', 'liver2d', '--out-dir', runs)
    assert ended.returncode == 0, ended.stderr
    page = (runs / 'liver2d' / 'tiny' / 'liver2d-tiny.md').read_text()
    assert 'phantoms held out' in page and '0.351' in page


def test_segment_writes_masks_on_the_scans_grid(ctlab, runs, tiny, tmp_path):
    series = next(p for p in sorted((tiny / 'train_images').glob('*/*')))
    model = runs / 'liver2d' / 'tiny' / 'fold0'
    ended = ctlab('segment', series, tmp_path / 'out', '--model', model, '--mesh', 'glb', '--json')
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    mask = nifti.read(tmp_path / 'out' / 'segmentation.nii.gz')
    assert facts['structures']['liver']['voxels'] == int((mask.array == 1).sum())
    nifti.write(nifti.Volume(np.zeros((4, 5, 6), np.int16) - 1000, np.eye(4)), tmp_path / 'air.nii.gz')
    ended = ctlab('segment', tmp_path / 'air.nii.gz', tmp_path / 'air', '--model', model)
    assert ended.returncode == 0 and 'liver' in ended.stdout, ended.stderr
    assert (tmp_path / 'air' / 'preview.png').exists() and nifti.read(
        tmp_path / 'air' / 'segmentation.nii.gz'
    ).shape == (4, 5, 6)


@pytest.mark.parametrize('model, words', [('nowhere', 'no config.json'), ('totalsegmentator', 'TOTALSEG_WEIGHTS_PATH')])
def test_segment_says_what_is_missing(ctlab, tmp_path, model, words):
    nifti.write(nifti.Volume(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / 'scan.nii.gz')
    ended = ctlab(
        'segment',
        tmp_path / 'scan.nii.gz',
        tmp_path / 'out',
        '--model',
        model,
        env={'TOTALSEG_WEIGHTS_PATH': str(tmp_path)},
    )
    assert ended.returncode == 1 and words in ended.stderr


@pytest.mark.parametrize('source', ['scanner_series', pytest.param('real', marks=pytest.mark.real)])
def test_a_series_of_a_scanner_is_segmented_with_its_dicom_object(ctlab, runs, source, request, tmp_path):
    import pydicom

    series = request.getfixturevalue(source)
    if source == 'real':
        series = series / 'example_ct_dicom'
    ended = ctlab('segment', series, tmp_path / 'out', '--model', runs / 'liver2d' / 'tiny' / 'fold0', '--mesh', 'none')
    assert ended.returncode == 0, ended.stderr
    mask = nifti.read(tmp_path / 'out' / 'segmentation.nii.gz')
    if mask.array.any():
        stored = pydicom.dcmread(tmp_path / 'out' / 'segmentation.dcm')
        assert stored.Modality == 'SEG' and stored.Rows == mask.shape[1]


def test_a_scan_is_segmented_without_any_model_or_download(ctlab, tmp_path):
    nifti.write(hu := small_scan(), tmp_path / 'scan.nii.gz')
    ended = ctlab('segment', tmp_path / 'scan.nii.gz', tmp_path / 'out', '--mesh', 'none', '--json')
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts['model'] == 'organ model' and set(facts['structures']) == {
        'liver',
        'spleen',
        'kidney_left',
        'kidney_right',
        'aorta',
        'bowel',
    }
    assert 400 < facts['structures']['liver']['volume_ml'] < 3000 and isinstance(facts['warnings'], list)
    expected = facts['expected_dice']
    assert expected and all(0 <= e['low'] <= e['dice'] <= e['high'] <= 1 for e in expected.values())
    assert (
        all(e['unfit'] == (e['dice'] < 0.7 or e['low'] < 0.5) for e in expected.values())
        and expected['liver']['dice'] > 0.5
    )
    masks = nifti.read(tmp_path / 'out' / 'segmentation.nii.gz')
    assert masks.shape == hu.shape and np.allclose(masks.affine, hu.affine, atol=1e-3)
    import ctlab as lab

    here = lab.segment(hu)
    assert np.array_equal(here.array, masks.array) and here.meta['structures'][0] == 'liver', 'the same in a notebook'


def test_all_structures_of_a_series(ctlab, tmp_path):
    """Organs, tissues and the areas at L3: as NIfTI with names, as DICOM SEG with codes, and in words."""
    from ctlab.organs.more_structures import STRUCTURES
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body
    from ctlab.scans.dicom import write_series
    from ctlab.scans.label_maps import read_masks

    protocol = ScanProtocol(spacing=5.0, thickness=5.0, start=60, stop=385, matrix=80, field_of_view=400)
    hu, *_ = acquire(draw_body(3, 4.0), protocol, 3)
    write_series(hu, tmp_path / 'series', '1')
    ended = ctlab('segment', tmp_path / 'series', tmp_path / 'out', '--structures', 'all')
    assert ended.returncode == 0, ended.stderr
    assert (
        'loading the networks' in ended.stderr.splitlines()[0] and f'segmenting {len(hu.array)} slices' in ended.stderr
    )
    assert 'at the third lumbar vertebra: muscle' in ended.stdout
    facts = json.loads((tmp_path / 'out' / 'statistics.json').read_text())
    assert tuple(facts['structures']) == STRUCTURES
    areas, volumes = facts['body_composition'], {n: f['volume_ml'] for n, f in facts['structures'].items()}
    assert 50 < areas['muscle_cm2'] < 400 and 20 < areas['muscle_hu'] < 150 and areas['visceral_fat_cm2'] > 5
    assert volumes['muscle'] > 2000 and volumes['subcutaneous_fat'] > 500 and volumes['lung'] > 500
    assert -190 <= facts['structures']['visceral_fat']['mean'] <= -30
    named = read_masks(tmp_path / 'out' / 'segmentation.nii.gz')
    assert named.places['muscle'][1] == 1 + STRUCTURES.index('muscle')
    stored = pydicom.dcmread(tmp_path / 'out' / 'segmentation.dcm')
    codes = {s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in stored.SegmentSequence}
    assert codes['muscle'] == '127954009' and codes['visceral_fat'] == '55603005' and codes['spine'] == '421060004'
    meshes = {p.stem for p in (tmp_path / 'out' / 'meshes').iterdir()}
    assert 'spine' in meshes and not meshes & {'muscle', 'subcutaneous_fat', 'visceral_fat', 'intermuscular_fat'}
    for wanted, words in (('soul', 'soul: not a structure'), ('muscle --model totalsegmentator', 'has its own')):
        ended = ctlab('segment', tmp_path / 'series', tmp_path / 'no', '--structures', *wanted.split())
        assert ended.returncode == 1 and words in ended.stderr and not (tmp_path / 'no').exists(), ended.stderr


def test_codes_of_structures_are_those_of_the_standard():
    from pydicom.sr.codedict import codes

    from ctlab.cohort.masks import _SNOMED

    for ours, theirs in (
        ('gallbladder', 'Gallbladder'),
        ('pancreas', 'Pancreas'),
        ('inferior_vena_cava', 'InferiorVenaCava'),
        ('urinary_bladder', 'Bladder'),
        ('heart', 'Heart'),
        ('lung', 'Lung'),
        ('spine', 'Spine'),
        ('bone', 'Bone'),
        ('muscle', 'SkeletalMuscle'),
        ('visceral_fat', 'AdiposeTissue'),
        ('stomach', 'Stomach'),
    ):
        assert _SNOMED[ours] == getattr(codes.SCT, theirs).value, ours


def test_the_organ_model_meets_its_promises():
    from pathlib import Path

    import ctlab as lab

    folder = Path(lab.__file__).parent / 'organs'
    assert sum(p.stat().st_size for p in folder.glob('*.safetensors')) <= 15e6
    card = (folder / 'organ_model.md').read_text()
    assert all(word in card for word in ('no patient', 'must not', 'seed', 'judged', 'command'))


def test_the_organ_model_on_a_real_patient(real):
    import ctlab as lab
    from ctlab.judge.metrics import dice

    found = lab.segment(lab.read(real / 'example_ct.nii.gz'))
    for organ, least in (
        ('liver', 0.9),
        ('spleen', 0.85),
        ('kidney_left', 0.85),
        ('kidney_right', 0.85),
        ('aorta', 0.75),
    ):
        truth = lab.read(real / 'example_seg_full' / f'{organ}.nii.gz').array > 0
        got = dice(found.array == 1 + found.meta['structures'].index(organ), truth)
        assert got > least, f'{organ}: {got:.2f}, as it was it is above {least}'


def test_a_cohort_without_masks_gets_those_of_the_organ_model(tiny, tmp_path):
    import shutil

    from ctlab.cohort.layout import list_series
    from ctlab.core.settings import Settings
    from ctlab.trauma.approach3 import load_data

    bare = tmp_path / 'cohort'
    for row in list_series(tiny).iloc[[0, 3]].to_dict('records'):
        shutil.copytree(row['folder'], bare / 'train_images' / str(row['patient_id']) / str(row['series_id']))
    patients = [int(p.name) for p in (bare / 'train_images').iterdir()]
    table = pd.read_csv(next(tiny / n for n in ('train_2024.csv', 'train.csv') if (tiny / n).exists()))
    table[table['patient_id'].isin(patients)].to_csv(bare / 'train.csv', index=False)
    data, masks = load_data(
        Settings(
            data_root=str(bare), work_dir=str(tmp_path / 'work'), out_dir=str(tmp_path / 'runs'), n_folds=2, workers=1
        )
    )
    assert set(masks.table['provider']) == {'organ model'} and len(data.table) == 2
    areas = masks.areas(data.table['series_id'].iloc[0])
    assert max(areas['liver']) > 1000, 'mm² of liver in some slice'
    assert (data.table['last'] > data.table['first']).all()


def test_the_organ_model_knows_where_it_is(ctlab, tmp_path):
    """A head has no organs and no masks; what is no CT, or no volume, is refused with a reason."""
    from ctlab.phantoms.patient_bodies import draw_head
    from ctlab.phantoms.synthesis import sample_tissue_hu
    from ctlab.scans.volume import make_volume

    tissue, hu = draw_head(1), sample_tissue_hu(np.random.default_rng(1))[0].numpy()
    head = np.where(tissue > 0, hu[tissue], -1000).astype(np.int16)[30:]
    nifti.write(make_volume(head, (3.0, 3.0, 3.0)), tmp_path / 'head.nii.gz')
    (tmp_path / 'head').mkdir()
    (tmp_path / 'head' / 'segmentation.nii.gz').write_bytes(b'of another scan')
    ended = ctlab('segment', tmp_path / 'head.nii.gz', tmp_path / 'head')
    assert ended.returncode == 0 and 'is the abdomen in this scan' in ended.stderr, ended.stderr
    assert not (tmp_path / 'head' / 'segmentation.nii.gz').exists() and (tmp_path / 'head' / 'preview.png').exists()
    for name, array, words in (('mr', np.abs(head), 'grey values'), ('slice', head[:1], 'needs a volume')):
        nifti.write(make_volume(array, (3.0, 3.0, 3.0)), tmp_path / f'{name}.nii.gz')
        ended = ctlab('segment', tmp_path / f'{name}.nii.gz', tmp_path / name)
        assert ended.returncode == 1 and words in ended.stderr and not (tmp_path / name).exists(), ended.stderr


def test_an_unfit_mask_is_said_and_not_sent(tmp_path, monkeypatch):
    """What is expected to be wrong stands in the SEG's description, and a rule of the node leaves it out."""
    import ctlab.organs.expected_dice as estimate
    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.network.auto_inference import InferenceRule, _segment_series
    from ctlab.organs.segment import segment

    write_series(small_scan(), series := tmp_path / 'series', 'a')
    bad, good = estimate.ExpectedDice(0.4, 0.1, 0.6), estimate.ExpectedDice(0.9, 0.8, 0.95)
    monkeypatch.setattr(
        estimate, 'predict_expected_dice', lambda _, found: {o: bad if o == 'liver' else good for o in found}
    )
    found = segment(series)
    assert any('liver: expected Dice 0.40 (0.10 to 0.60); the mask is unfit' in w for w in found.meta['warnings'])
    names = {n: k for k, n in enumerate(found.meta['structures'], 1)}
    write_dicom_seg(found, series, tmp_path / 'all.dcm', numbers=names)
    described = {s.SegmentLabel: s.SegmentDescription for s in pydicom.dcmread(tmp_path / 'all.dcm').SegmentSequence}
    assert 'unfit' in described['liver'] and described['bowel'] == 'expected Dice 0.90 (0.80 to 0.95)'
    findings, flags = _segment_series(series, InferenceRule('all'), tmp_path, (), 'organ model 1')
    sent = {s.SegmentLabel for s in pydicom.dcmread(tmp_path / 'seg.dcm').SegmentSequence}
    assert 'liver' not in sent and sent and {f.name for f in findings} == sent and any('unfit' in w for w in flags)


def test_a_mask_of_what_is_not_there_is_left_out(monkeypatch):
    import ctlab as lab
    import ctlab.organs.expected_dice as estimate

    gone, good = estimate.ExpectedDice(0.1, 0.0, 0.3), estimate.ExpectedDice(0.9, 0.8, 0.95)
    monkeypatch.setattr(
        estimate, 'predict_expected_dice', lambda _, found: {o: gone if o == 'spleen' else good for o in found}
    )
    found = lab.segment(small_scan())
    assert not (found.array == 2).any() and (found.array == 1).any() and 'spleen' not in found.meta['expected']
    assert any(w.startswith('spleen: a mask of') and 'was left out' in w for w in found.meta['warnings'])
