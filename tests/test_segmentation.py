"Segmentation studies as an engineer runs them, and the command that draws masks."
import json
import numpy as np
import pandas as pd
import pytest
from ctlab.scans import nifti


@pytest.fixture(scope='module')
def runs(ctlab, tmp_path_factory):
    "Two folds of a tiny study by papermill."
    out = tmp_path_factory.mktemp('masks')
    ended = ctlab('run', '10_liver2d', '--folds', '0,1', '--jobs', 2, '--out', out/'notebooks', '-p', 'out_dir',
                  out/'runs', '-p', 'epochs', 1, env={'OMP_NUM_THREADS': '1'})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return out/'runs'


def test_folds_hold_out_other_patients_and_are_reported(ctlab, runs):
    scores = [
        pd.read_parquet(runs/'liver2d'/'tiny'/f'fold{k}'/'predictions.parquet').query("split == 'test'")
        for k in (0, 1)
    ]
    assert not set(scores[0]['case']) & set(scores[1]['case'])
    split = json.loads((runs/'liver2d'/'tiny'/'fold0'/'config.json').read_text())['split']
    assert not set(split['test']) & set(split['train'] + split['valid']) and not set(split['train']) & set(
        split['valid']
    )
    metrics = pd.read_csv(runs/'liver2d'/'tiny'/'fold0'/'metrics.csv')
    assert list(metrics.columns) == ['study', 'fold', 'target', 'split', 'metric', 'value', 'low', 'high', 'n']
    ended = ctlab('report', 'liver2d', '--out-dir', runs)
    assert ended.returncode == 0, ended.stderr
    page = (runs/'liver2d'/'tiny'/'liver2d-tiny.md').read_text()
    assert 'phantoms held out' in page and '0.351' in page


def test_segment_writes_masks_on_the_scans_grid(ctlab, runs, tiny, tmp_path):
    series = next(p for p in sorted((tiny/'train_images').glob('*/*')))
    model = runs/'liver2d'/'tiny'/'fold0'
    ended = ctlab('segment', series, tmp_path/'out', '--model', model, '--mesh', 'glb', '--json')
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    mask = nifti.read(tmp_path/'out'/'segmentation.nii.gz')
    assert facts['structures']['liver']['voxels'] == int((mask.array == 1).sum())
    nifti.write(nifti.Volume(np.zeros((4, 5, 6), np.int16) - 1000, np.eye(4)), tmp_path/'air.nii.gz')
    ended = ctlab('segment', tmp_path/'air.nii.gz', tmp_path/'air', '--model', model)
    assert ended.returncode == 0 and 'liver' in ended.stdout, ended.stderr
    assert (tmp_path/'air'/'preview.png').exists() and nifti.read(
        tmp_path/'air'/'segmentation.nii.gz'
    ).shape == (4, 5, 6)


@pytest.mark.parametrize('model, words', [('nowhere', 'no config.json'), ('totalsegmentator', 'TOTALSEG_WEIGHTS_PATH')])
def test_segment_says_what_is_missing(ctlab, tmp_path, model, words):
    nifti.write(nifti.Volume(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path/'scan.nii.gz')
    ended = ctlab(
        'segment',
        tmp_path/'scan.nii.gz',
        tmp_path/'out',
        '--model',
        model,
        env={'TOTALSEG_WEIGHTS_PATH': str(tmp_path)},
    )
    assert ended.returncode == 1 and words in ended.stderr


def test_a_real_series_is_segmented_with_its_dicom_object(ctlab, runs, real, tmp_path):
    import pydicom
    ended = ctlab('segment', real/'example_ct_dicom', tmp_path/'out', '--model', runs/'liver2d'/'tiny'/'fold0',
                  '--mesh', 'none')
    assert ended.returncode == 0, ended.stderr
    mask = nifti.read(tmp_path/'out'/'segmentation.nii.gz')
    if mask.array.any():
        stored = pydicom.dcmread(tmp_path/'out'/'segmentation.dcm')
        assert stored.Modality == 'SEG' and stored.Rows == mask.shape[1]
