"""Anyone's predictions and masks: forms that people have, referees for the numbers, reports that can be recomputed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctlab as lab
from ctlab.core.anatomy import LABEL_COLUMNS, STRUCTURE_CODES, TARGETS
from ctlab.judge.classification import JudgeOptions, holm, rank_rows, recalibration, select_threshold
from ctlab.judge.evaluate import EvaluationOptions, judge
from ctlab.judge.predictions import Answers, ReadingOptions, Task, match_predictions, read_any_table
from ctlab.judge.segmentation import MaskOptions, judge_mask
from ctlab.scans import nifti
from ctlab.scans.label_maps import read_label_map, read_masks
from ctlab.scans.volume import make_volume

QUICK = EvaluationOptions(
    classification=JudgeOptions(resamples=100), segmentation=MaskOptions(resamples=100, workers=1)
)


def rsna(n=60, seed=0):
    """Make labels in the challenge's form, and probabilities for them."""
    rng, hot, p = np.random.default_rng(seed), {}, {}
    for target, grades in TARGETS.items():
        truth = rng.integers(0, len(grades), n)
        raw = rng.random((n, len(grades))) + np.eye(len(grades))[truth]
        raw /= raw.sum(1, keepdims=True)
        for k, grade in enumerate(grades):
            hot[f'{target}_{grade}'], p[f'{target}_{grade}'] = (truth == k).astype(int), raw[:, k]
    patients = pd.Series(10_000 + np.arange(n), name='patient_id')
    labels = pd.DataFrame(hot)
    labels['any_injury'] = 1 - labels[[f'{t}_healthy' for t in TARGETS]].min(axis=1)
    return pd.concat([patients, labels], axis=1), pd.concat([patients, pd.DataFrame(p)], axis=1)


def halves(table):
    """Give each patient two scans whose probabilities have the table's as their mean."""
    values = table[LABEL_COLUMNS]
    gap = 0.5 * np.minimum(values, 1 - values) * 0
    first, second = table.assign(**(values + gap)), table.assign(**(values - gap))
    return pd.concat([first.assign(series_id=range(len(table))), second.assign(series_id=range(900, 900 + len(table)))])


FORMS = {
    'as it is': lambda t: t,
    'columns mixed': lambda t: t[t.columns[::-1]],
    'rows mixed': lambda t: t.sample(frac=1, random_state=3),
    '_prediction': lambda t: t.rename(columns={c: f'{c}_prediction' for c in LABEL_COLUMNS}),
    'pred_': lambda t: t.rename(columns={c: f'pred_{c}' for c in LABEL_COLUMNS}),
    'ids as floats': lambda t: t.astype({'patient_id': float}),
    'ids with blanks': lambda t: t.assign(patient_id=' ' + t['patient_id'].astype(str) + ' '),
    'two scans each': halves,
    'twice the same': lambda t: pd.concat([t, t]),
    'not yet divided': lambda t: t.assign(**(3 * t[LABEL_COLUMNS] / 4)),
    'with others': lambda t: pd.concat([t, t.assign(patient_id=t['patient_id'] + 5000)]),
    'capital names': lambda t: t.rename(columns=str.upper),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('ending', ['csv', 'parquet', 'xlsx', 'semicolon.csv'])
def test_every_form_of_the_same_answers_has_the_same_score(tmp_path, form, ending):
    labels, p = rsna()
    labels.to_csv(tmp_path / 'train.csv', index=False)
    table, path = FORMS[form](p), tmp_path / f'form.{ending}'
    if ending == 'parquet':
        table.to_parquet(path)
    elif ending == 'xlsx':
        table.to_excel(path, index=False)
    elif ending == 'csv':
        table.to_csv(path, index=False)
    else:
        table.to_csv(path, index=False, sep=';', decimal=',')
    found = match_predictions(read_any_table(path), read_any_table(tmp_path / 'train.csv'))
    for task in found.tasks:
        wanted = p[[f'{task.name}_{c}' for c in task.classes]].to_numpy()
        order = found.rows['patient'].astype(int).to_numpy() - 10_000
        assert np.allclose(found.probability[task.name], wanted[order], atol=1e-12), task.name
        truth = labels[[f'{task.name}_{c}' for c in task.classes]].to_numpy().argmax(1)
        assert np.array_equal(found.truth[task.name], truth[order])


def test_the_challenge_s_metric_is_that_of_the_official_steps(tmp_path):
    from ctlab.judge.metrics import rsna_losses

    labels, p = rsna()
    labels.to_csv(tmp_path / 'train.csv', index=False)
    p.to_csv(tmp_path / 'p.csv', index=False)
    parts = judge(tmp_path / 'p.csv', tmp_path / 'train.csv', QUICK)['challenge'].set_index('part')['value']
    wanted = rsna_losses(labels.set_index('patient_id'), p.set_index('patient_id'))
    assert all(np.isclose(parts[k], v, rtol=1e-12) for k, v in wanted.items())
    assert np.isclose(parts['mean'], np.mean(list(wanted.values())), rtol=1e-12)


def test_other_questions_than_ours(tmp_path):
    """Multi-class with names, in one column of hard labels, per cent, long names, and a mapping that must be said."""
    truth = pd.DataFrame({'image': list('abcdef'), 'diagnosis': ['normal', 'mass', 'node', 'mass', 'normal', 'node']})
    truth.to_csv(tmp_path / 'truth.csv', index=False)
    wide = pd.DataFrame({'image': list('fedcba'), 'mass': 0.2, 'node': 0.3, 'normal': 0.5})
    hard = pd.DataFrame({'image': list('abcdef'), 'predicted': ['normal', 'mass', 'node', 'node', 'normal', 'node']})
    found = match_predictions(wide, truth)
    assert found.tasks[0].classes == ('normal', 'mass', 'node') and np.allclose(
        found.probability['diagnosis'][0], (0.5, 0.2, 0.3)
    )
    found = match_predictions(hard, truth)
    assert found.kind['diagnosis'] == 'label' and found.probability['diagnosis'].argmax(1).tolist() == [
        0,
        1,
        2,
        2,
        0,
        2,
    ]
    binary = truth.assign(diagnosis=[0, 1, 0, 1, 0, 1])
    odd = pd.DataFrame({'image': list('abcdef'), 'alpha': [10, 90, 20, 80, 30, 70.5], 'beta': 1.5})
    with pytest.raises(ValueError, match='say it as diagnosis=COLUMN'):
        match_predictions(odd, binary)
    found = match_predictions(odd, binary, options=ReadingOptions(mapping={'diagnosis': 'alpha'}, scale='percent'))
    assert np.allclose(found.probability['diagnosis'][:, 1], odd['alpha'] / 100)
    with pytest.raises(ValueError, match='no column gamma'):
        match_predictions(odd, binary, options=ReadingOptions(mapping={'diagnosis': 'gamma'}))


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_calibration_and_thresholds_beside_referees(seed):
    import statsmodels.api as sm
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.95, 200)
    truth = (rng.random(200) < p ** rng.uniform(0.6, 1.6)).astype(int)
    x = sm.add_constant(np.log(p / (1 - p)))
    assert np.allclose(recalibration(truth, p), sm.Logit(truth, x).fit(disp=0).params, atol=1e-5)
    score = np.round(p, 1)
    false, hit, thresholds = roc_curve(truth, score)
    assert np.isclose(
        max(hit - false),
        hit[thresholds == select_threshold(truth, score)] - false[thresholds == select_threshold(truth, score)],
    )
    least = select_threshold(truth, score, 'sensitivity 0.9')
    assert (score >= least)[truth == 1].mean() >= 0.9 > (score > least)[truth == 1].mean()
    most = select_threshold(truth, score, 'specificity 0.9')
    assert (score < most)[truth == 0].mean() >= 0.9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_holm_beside_statsmodels(p):
    from statsmodels.stats.multitest import multipletests

    with patch('gc.collect'):  # it asks for that at each call, which takes a second among many tests
        assert np.allclose(holm(p), multipletests(p, method='holm')[1])


def test_critical_difference_is_that_of_the_tables():
    """Demšar 2006, table 5: q for two to five classifiers."""
    rng, n = np.random.default_rng(0), 50
    rows = pd.DataFrame({'row': np.arange(n).astype(str), 'patient': np.arange(n).astype(str)})
    truth, task = rng.integers(0, 2, n), Task('t', ('0', '1'), ('t',))
    for k, q in ((3, 2.343), (4, 2.569), (5, 2.728)):
        every = []
        for name in range(k):
            p = rng.random(n)
            values = {'t': np.stack([1 - p, p], 1)}
            every.append(Answers(str(name), (task,), rows, {'t': truth}, values, {'t': 'probability'}, pd.DataFrame()))
        critical = rank_rows(every)['critical difference'].iloc[0]
        assert np.isclose(critical, q * np.sqrt(k * (k + 1) / (6 * n)), atol=1e-3)


def wavy(seed, shape=(22, 30, 34)):
    """Make a wavy ball."""
    rng = np.random.default_rng(seed)
    away = np.sqrt(sum((a - n / 2 - rng.normal(0, 1)) ** 2 for a, n in zip(np.ogrid[tuple(map(slice, shape))], shape)))
    return away < rng.uniform(7, 10) + np.sin(np.arange(shape[2]) / 2 + rng.uniform(0, 6))


@pytest.mark.parametrize('seed', range(6))
def test_masks_beside_monai_and_surface_distance(seed):
    import surface_distance
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    a, b, spacing = wavy(seed), wavy(seed + 100), (2.0, 0.8, 0.9)
    row = judge_mask(a, b, spacing)
    both = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b)]
    assert np.isclose(row['Dice'], float(compute_dice(*both)))
    hausdorff = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing)
    assert np.isclose(row['HD95 (mm)'], float(hausdorff), atol=1e-4)
    nsd = compute_surface_dice(*both, class_thresholds=[1.0], include_background=True, spacing=spacing)
    assert np.isclose(row['NSD 1 mm'], float(nsd), atol=1e-4)
    mean = compute_average_surface_distance(*both, include_background=True, symmetric=True, spacing=spacing)
    assert np.isclose(row['mean surface distance (mm)'], float(mean), atol=1e-4)
    found = surface_distance.compute_surface_distances(b, a, spacing)
    assert (
        abs(surface_distance.compute_surface_dice_at_tolerance(found, 1.0) - row['NSD 1 mm']) < 0.2
    )  # it weighs each element by its area
    assert abs(surface_distance.compute_robust_hausdorff(found, 95) - row['HD95 (mm)']) < max(spacing)


@pytest.mark.parametrize('turn', range(3))
def test_masks_do_not_care_where_they_lie(turn):
    a, b, spacing = wavy(1), wavy(101), (2.0, 0.8, 0.9)
    first = judge_mask(a, b, spacing)
    if turn == 0:
        again = judge_mask(np.pad(a, 5), np.pad(b, 5), spacing)
    elif turn == 1:
        again = judge_mask(a.transpose(2, 0, 1), b.transpose(2, 0, 1), (spacing[2], spacing[0], spacing[1]))
    else:
        again = judge_mask(a[::-1, :, ::-1], b[::-1, :, ::-1], spacing)
    assert all(np.isclose(first[k], again[k]) for k in first)


def test_a_report_is_recomputed_by_verify(tmp_path, ctlab):
    labels, p = rsna(80)
    labels.assign(sex=['F', 'M'] * 40).to_csv(tmp_path / 'train.csv', index=False)
    for name, part in (('one', p), ('two', rsna(80, 7)[1])):
        part.assign(fold=part['patient_id'] % 4).to_csv(tmp_path / f'{name}.csv', index=False)
    words = [str(tmp_path / 'one.csv'), str(tmp_path / 'two.csv'), '--truth', str(tmp_path / 'train.csv')]
    done = ctlab('judge', *words, '--out', str(tmp_path / 'report'), '--resamples', '100')
    assert done.returncode == 0, done.stderr
    endings = {q.suffix for q in (tmp_path / 'report').iterdir()}
    assert {'.html', '.md', '.tex', '.json', '.xlsx', '.parquet', '.png'} <= endings
    assert ctlab('verify', str(tmp_path / 'report')).returncode == 0
    page = tmp_path / 'report' / 'report.html'
    page.write_text(page.read_text().replace('">0.', '">9.', 1))
    wrong = ctlab('verify', str(tmp_path / 'report'))
    assert wrong.returncode == 1 and 'report.html' in wrong.stderr
    facts = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert facts['tables']['challenge'] and str(tmp_path) not in json.dumps(facts)


def test_python_has_one_call(tmp_path):
    labels, p = rsna()
    labels.to_csv(tmp_path / 'train.csv', index=False)
    p.to_csv(tmp_path / 'p.csv', index=False)
    found = lab.judge(tmp_path / 'p.csv', tmp_path / 'train.csv', classification=JudgeOptions(resamples=100))
    assert found['metrics']['n'].eq(60).all() and '<table' in found._repr_html_()


def labelled(shape=(12, 20, 24)):
    """Make a label map of two structures."""
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 3:12, 3:12], labels[4:8, 13:18, 12:20] = 1, 2
    return labels


def test_an_excel_cell_is_no_formula(tmp_path, ctlab):
    table = pd.DataFrame({'patient_id': range(30), 'y': [0, 1] * 15, 'site': ['=cmd()', '@x', 'b'] * 10})
    table.to_csv(tmp_path / 'y.csv', index=False)
    table[['patient_id']].assign(y=np.linspace(0, 1, 30)).to_csv(tmp_path / '=p.csv', index=False)
    done = ctlab(
        'judge',
        str(tmp_path / '=p.csv'),
        '--truth',
        str(tmp_path / 'y.csv'),
        '--out',
        str(tmp_path / 'o'),
        '--resamples',
        '50',
    )
    assert done.returncode == 0, done.stderr
    import openpyxl

    for sheet in openpyxl.load_workbook(tmp_path / 'o' / 'o.xlsx').worksheets:
        assert not any(cell.data_type == 'f' for row in sheet.iter_rows() for cell in row)


NAMES = {1: 'liver', 2: 'spleen'}


def written(kind, folder, labels=None):
    """Write the same label map in a format, as the program does that has it; returns the path."""
    volume = make_volume(labelled() if labels is None else labels, (3.0, 1.5, 1.5))
    if kind == 'lab':
        return nifti.write(replace(volume, meta={'names': NAMES}), folder / 'case.nii.gz')
    if kind == 'TotalSegmentator':
        from totalsegmentator.nifti_ext_header import save_multilabel_nifti

        save_multilabel_nifti(nifti.to_nibabel(volume), str(folder / 'case.nii.gz'), NAMES)
        return folder / 'case.nii.gz'
    if kind == 'nnU-Net':
        (folder / 'dataset.json').write_text(json.dumps({'labels': {'background': 0, 'liver': 1, 'spleen': 2}}))
        return nifti.write(volume, folder / 'case.nii.gz')
    if kind == 'a file each':
        (folder / 'case').mkdir()
        for number, name in NAMES.items():
            nifti.write(replace(volume, array=volume.array == number), folder / 'case' / f'{name}.nii.gz')
        return folder / 'case'
    import SimpleITK as sitk

    from ctlab.scans.volume import to_sitk

    image = to_sitk(volume)
    for k, (number, name) in enumerate(NAMES.items()):
        for key, value in (('ID', f'Segment_{k}'), ('Name', name), ('LabelValue', str(number)), ('Color', '1 0 0')):
            image.SetMetaData(f'Segment{k}_{key}', value)
    sitk.WriteImage(image, str(folder / 'case.seg.nrrd'))
    return folder / 'case.seg.nrrd'


def shown_names(page):
    """Read which structures a page names."""
    data = re.search('<script type="application/json" id="data">(.*?)</script>', page.read_text())[1]
    return [s['name'] for s in json.loads(data)['structures']]


WRITERS = ('lab', 'TotalSegmentator', 'nnU-Net', 'a file each', '3D Slicer')


@pytest.mark.parametrize('kind', WRITERS)
def test_names_arrive_from_every_writer(tmp_path, kind):
    path = written(kind, tmp_path)
    found = read_masks(path)
    assert found.names == ['liver', 'spleen'] and found.named
    for number, name in NAMES.items():
        assert np.array_equal(found.mask(name).array, labelled() == number)
    assert read_label_map(path).meta['names'] == NAMES


@pytest.mark.parametrize('kind', WRITERS)
def test_every_reader_shows_the_names_of_every_writer(tmp_path, kind, ctlab):
    """`ctlab view`, `ctlab judge` and `ctlab.view` call the liver liver."""
    (tmp_path / 'masks').mkdir()
    path = written(kind, tmp_path / 'masks')
    hu = make_volume(np.where(labelled() > 0, 60, -900).astype(np.int16), (3.0, 1.5, 1.5))
    nifti.write(hu, tmp_path / 'scan.nii.gz')
    done = ctlab('view', str(tmp_path / 'scan.nii.gz'), str(tmp_path / 'p.html'), '--mask', str(path))
    assert done.returncode == 0 and shown_names(tmp_path / 'p.html') == ['liver', 'spleen']
    truth = tmp_path / 'truth'
    truth.mkdir()
    written('lab', truth)
    side = path.parent if path.is_file() or kind == 'a file each' else path
    rows = judge(side, truth, QUICK)['cases']
    assert set(rows['structure']) == {'liver', 'spleen'} and rows['Dice'].eq(1).all()


@pytest.mark.parametrize('kind', WRITERS)
def test_the_workbench_takes_masks_with_their_names(tmp_path, kind):
    """What a version of the workbench is called, it is called when somebody reads its file."""
    from ctlab.interfaces.workbench import Workspace

    (tmp_path / 'masks').mkdir()
    hu = make_volume(np.where(labelled() > 0, 60, -900).astype(np.int16), (3.0, 1.5, 1.5))
    work = Workspace(tmp_path / 'work')
    scan = work.scan(work.import_files(nifti.write(hu, tmp_path / 'scan.nii.gz')).series[0])
    mask = work.import_mask(scan, written(kind, tmp_path / 'masks'))
    assert mask.structures == {'liver': 1, 'spleen': 2}
    assert read_label_map(mask.path).meta['names'] == NAMES and nifti.read(mask.path).meta['names'] == NAMES
    bare = work.import_mask(scan, nifti.write(make_volume(labelled(), (3.0, 1.5, 1.5)), tmp_path / 'bare.nii.gz'))
    assert bare.structures == {'number 1': 1, 'number 2': 2}, 'no name by guess, though a version has names'


def test_segment_then_view_calls_the_liver_liver(tmp_path, ctlab):
    """Two lines of the README."""
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body

    protocol = ScanProtocol(spacing=5.0, thickness=5.0, start=170, stop=385, matrix=80, field_of_view=360)
    hu, structures, _ = acquire(draw_body(5, 4.0), protocol, 5)
    nifti.write(hu, tmp_path / 'scan.nii.gz')
    assert ctlab('segment', str(tmp_path / 'scan.nii.gz'), str(tmp_path / 'out'), '--mesh', 'none').returncode == 0
    mask = tmp_path / 'out' / 'segmentation.nii.gz'
    assert ctlab('view', str(tmp_path / 'scan.nii.gz'), str(tmp_path / 'p.html'), '--mask', str(mask)).returncode == 0
    assert 'liver' in shown_names(tmp_path / 'p.html') and 'skin' not in shown_names(tmp_path / 'p.html')
    assert lab.read(tmp_path / 'out').meta['names'][1] == 'liver'
    nifti.write(structures, tmp_path / 'truth.nii.gz')
    assert nifti.read(tmp_path / 'truth.nii.gz').meta['names'][STRUCTURE_CODES['liver']] == 'liver'
    from totalsegmentator.nifti_ext_header import load_multilabel_nifti

    assert load_multilabel_nifti(mask)[1][2] == 'spleen', "TotalSegmentator's own reader finds our names"


def test_a_mask_without_names_keeps_its_numbers(tmp_path, ctlab):
    nifti.write(make_volume(labelled(), (3.0, 1.5, 1.5)), tmp_path / 'case.nii.gz')
    found = read_masks(tmp_path / 'case.nii.gz')
    assert found.names == ['label 1', 'label 2'] and not found.named
    nifti.write(
        make_volume(np.where(labelled() > 0, 50, -900).astype(np.int16), (3.0, 1.5, 1.5)), tmp_path / 's.nii.gz'
    )
    words = ('view', str(tmp_path / 's.nii.gz'), str(tmp_path / 'p.html'), '--mask', str(tmp_path / 'case.nii.gz'))
    assert ctlab(*words).returncode == 0 and shown_names(tmp_path / 'p.html') == ['number 1', 'number 2']
    assert ctlab(*words, '--structures', 'liver,spleen').returncode == 0
    assert shown_names(tmp_path / 'p.html') == ['liver', 'spleen']


@pytest.mark.parametrize(
    'content',
    [
        '<LabelTable><Label Key="1" Red="x">a</Label></LabelTable>',
        '<LabelTable>' + '<Label Key="1"><![CDATA[' * 500,
        '<!DOCTYPE a [<!ENTITY b "c">]><LabelTable><Label Key="9999999999999999999">&b;</Label></LabelTable>',
        '<LabelTable><Label Key="-3">skin</Label><Label Key="">fat</Label></LabelTable>',
        'LabelTable \x00\xff',
    ],
)
def test_a_hostile_label_table_is_no_danger(tmp_path, content):
    import nibabel

    image = nifti.to_nibabel(make_volume(labelled(), (3.0, 1.5, 1.5)))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, content.encode('utf-8', 'replace')))
    nibabel.save(image, tmp_path / 'case.nii.gz')
    found = read_masks(tmp_path / 'case.nii.gz')
    assert np.array_equal(found.layers[0].array, labelled()) and len(found.names) >= 2


def test_masks_on_another_grid_are_told_and_missing_ones_count(tmp_path):
    for side in ('truth', 'ours'):
        (tmp_path / side).mkdir()
    for k in range(3):
        volume = replace(make_volume(labelled(), (3.0, 1.5, 1.5)), meta={'names': NAMES})
        nifti.write(volume, tmp_path / 'truth' / f'c{k}.nii.gz')
        if k < 2:
            finer = np.repeat(labelled(), 2, 0)
            moved = make_volume(finer, (1.5, 1.5, 1.5), (0, 0, -0.75))
            nifti.write(replace(moved, meta={'names': NAMES}), tmp_path / 'ours' / f'c{k}.nii.gz')
    found = judge(tmp_path / 'ours', tmp_path / 'truth', QUICK)
    dice = found['cases'].groupby('case')['Dice'].mean()
    assert dice['c0'] > 0.99 and dice['c2'] == 0
    assert any('another grid' in n for n in found.notes) and any('without a prediction' in n for n in found.notes)


def test_one_bad_mask_stops_nobody(tmp_path):
    for side in ('truth', 'ours'):
        (tmp_path / side).mkdir()
        for k in range(4):
            written_to = tmp_path / side / f'c{k}.nii.gz'
            nifti.write(replace(make_volume(labelled(), (3.0, 1.5, 1.5)), meta={'names': NAMES}), written_to)
    (tmp_path / 'ours' / 'c1.nii.gz').write_bytes(b'no mask')
    found = judge(tmp_path / 'ours', tmp_path / 'truth', QUICK)
    assert found['cases']['case'].nunique() == 3 and any('c1' in n and 'could not be judged' in n for n in found.notes)
    with pytest.raises(ValueError, match='no structure of the reference'):
        lone = tmp_path / 'lone'
        lone.mkdir()
        other = replace(make_volume(labelled(), (3.0, 1.5, 1.5)), meta={'names': {1: 'tibia', 2: 'femur'}})
        nifti.write(other, lone / 'c0.nii.gz')
        judge(lone / 'c0.nii.gz', tmp_path / 'truth' / 'c0.nii.gz', QUICK)


def test_dicom_seg_has_its_names_and_its_place(tmp_path):
    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.scans.dicom import write_series

    hu = make_volume(np.where(labelled() > 0, 60, -900).astype(np.int16), (3.0, 1.5, 1.5), (-20.0, 10.0, 40.0))
    write_series(hu, tmp_path / 'series', 'P1', '1.2.3.4')
    mask = replace(hu, array=labelled())
    write_dicom_seg(mask, tmp_path / 'series', tmp_path / 'seg.dcm', numbers={'liver': 1, 'spleen': 2})
    found = read_masks(tmp_path / 'seg.dcm')
    assert {'liver', 'spleen'} == set(found.names)
    for number, name in NAMES.items():
        own = found.mask(name)
        assert own.array.sum() == (labelled() == number).sum()
        place = own.affine[:3, :3] @ np.argwhere(own.array).mean(0)[::-1] + own.affine[:3, 3]
        wanted = hu.affine[:3, :3] @ np.argwhere(labelled() == number).mean(0)[::-1] + hu.affine[:3, 3]
        assert np.allclose(place, wanted, atol=0.1), name


def test_names_of_files_are_no_paths(tmp_path, ctlab):
    """A name from a file is text on the page and nothing else."""
    table = pd.DataFrame({'patient_id': range(30), '<script>x': [0, 1] * 15})
    table.to_csv(tmp_path / 'y.csv', index=False)
    table[['patient_id']].assign(score=np.linspace(0, 1, 30)).to_csv(tmp_path / 'p.csv', index=False)
    out = tmp_path / 'o'
    done = ctlab(
        'judge', str(tmp_path / 'p.csv'), '--truth', str(tmp_path / 'y.csv'), '--out', str(out), '--resamples', '50'
    )
    assert done.returncode == 0, done.stderr
    assert '<script>x' not in (out / 'o.html').read_text() and {p.parent for p in out.rglob('*')} == {out}
    assert sorted(Path(tmp_path).iterdir()) == sorted([tmp_path / n for n in ('o', 'p.csv', 'y.csv')])


# ---------------------------------------------------------------- referees beyond Python
REFEREES = Path(__file__).parent / 'referees'


def referee_scores():
    """Read the scores that the referees were given."""
    table = pd.read_csv(REFEREES / 'scores.csv')
    return table, table['truth'].to_numpy()


def test_areas_and_delong_are_those_of_proc():
    from ctlab.judge.metrics import delong, roc_auc

    table, truth = referee_scores()
    proc = pd.read_csv(REFEREES / 'proc.csv', index_col='what')['value']
    assert np.isclose(roc_auc(truth, table['one']), proc['AUC of one'], atol=1e-12)
    assert np.isclose(roc_auc(truth, table['reversed']), proc['AUC of reversed with direction given'], atol=1e-12)
    pair = delong(truth, table['one'], table['two'])
    assert np.isclose(pair['p'], proc['p'], atol=1e-9)
    difference = proc['AUC of one'] - proc['AUC of two']
    half = 1.959963984540054 * abs(difference / proc['Z'])
    assert np.allclose([pair['low'], pair['high']], [difference - half, difference + half], atol=1e-9)
    threshold = select_threshold(truth, table['one'].to_numpy())
    called = table['one'] >= threshold
    youden = called[truth == 1].mean() - called[truth == 0].mean()
    assert np.isclose(youden, proc['Youden sensitivity'] + proc['Youden specificity'] - 1)


def test_stored_numbers_of_proc_are_what_proc_says_today():
    import shutil
    import subprocess

    if not shutil.which('Rscript'):
        pytest.skip('R is not installed')
    done = subprocess.run(['Rscript', 'proc.R'], cwd=REFEREES, capture_output=True, text=True)
    if 'there is no package' in done.stderr:
        pytest.skip('pROC is not installed')
    assert done.stdout == (REFEREES / 'proc.csv').read_text()


def test_intervals_beside_confidenceinterval():
    from ctlab.judge.classification import metric_rows
    from ctlab.judge.consistency import wilson

    table, truth = referee_scores()
    theirs = pd.read_csv(REFEREES / 'confidenceinterval.csv').set_index(['what', 'method'])
    for what in ('accuracy', 'recall'):
        n = len(truth) if what == 'accuracy' else int(truth.sum())
        row = theirs.loc[(what, 'wilson')]
        assert np.allclose(wilson(row['value'], n), (row['low'], row['high']), atol=1e-6)
    answers = match_predictions(table[['patient_id', 'one']], table[['patient_id', 'truth']])
    ours = metric_rows(answers, JudgeOptions(resamples=5000)).set_index('metric')
    for (what, _), row in theirs.iterrows():
        assert np.isclose(ours.loc[what, 'value'], row['value'], atol=1e-6), what
        assert np.allclose(ours.loc[what, ['low', 'high']].astype(float), (row['low'], row['high']), atol=0.02), what


@given(st.integers(1, 60), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_possible_tables_are_those_of_mlscorecheck(positive, negative, data):
    import logging

    from mlscorecheck.check.binary import check_1_testset_no_kfold

    from ctlab.judge.consistency import confusion_exists, parse_cell

    logging.disable(logging.INFO)
    tp, tn = data.draw(st.integers(0, positive)), data.draw(st.integers(0, negative))
    values = {
        'accuracy': (tp + tn) / (positive + negative),
        'recall': tp / positive,
        'specificity': tn / negative,
    }
    shift = data.draw(st.sampled_from([0, 0, 0.01, 0.03, -0.02]))
    values['accuracy'] = min(1.0, max(0.0, values['accuracy'] + shift))
    cells = {k: parse_cell(f'{v:.3f}') for k, v in values.items()}
    short = {'accuracy': 'acc', 'recall': 'sens', 'specificity': 'spec'}
    scores = {short[k]: float(f'{v:.3f}') for k, v in values.items()}
    theirs = check_1_testset_no_kfold(
        testset={'p': positive, 'n': negative}, scores=scores, eps=0.0005 + 1e-9, numerical_tolerance=1e-9
    )
    logging.disable(logging.NOTSET)
    assert confusion_exists(cells, positive + negative, positive) == (not theirs['inconsistency'])


def test_a_long_table_is_judged_as_the_wide_one(tmp_path):
    labels, answers = rsna(40)
    wide = judge(write(answers, tmp_path / 'wide.csv'), write(labels, tmp_path / 'labels.csv'), QUICK)
    long = answers.melt('patient_id', var_name='target', value_name='probability').sample(frac=1, random_state=0)
    found = judge(write(long, tmp_path / 'long.csv'), tmp_path / 'labels.csv', QUICK)
    assert np.allclose(found['metrics']['value'], wide['metrics']['value'], equal_nan=True)
    assert any('rows with a target each' in n for n in found.notes)
    bleeding = pd.DataFrame({'ID': [f'ID_{k:03d}_{t}' for k in range(40) for t in ('any', 'epidural')]})
    truth = bleeding.assign(Label=np.arange(80) // 3 % 2)
    p = bleeding.assign(Label=np.linspace(0.1, 0.9, 80))
    ich = judge(write(p, tmp_path / 'p.csv'), write(truth, tmp_path / 'y.csv'), QUICK)
    assert set(ich['metrics']['target']) == {'any', 'epidural'}
    with pytest.raises(ValueError, match='has none for'):
        judge(write(long[1:], tmp_path / 'lacks.csv'), tmp_path / 'labels.csv', QUICK)


def write(table, path):
    """Write a table as CSV; returns its path."""
    table.to_csv(path, index=False)
    return path
