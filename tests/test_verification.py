"""Proofs of reports: one changed character is found and named; what stands beside a table follows from its answers."""

import hashlib
import html
import json
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from test_comparison import answers
from test_labels import labels

from ctlab.cohort.labels import class_labels
from ctlab.core.anatomy import LABEL_COLUMNS, TARGETS
from ctlab.judge.metrics import bootstrap
from ctlab.reporting import verification
from ctlab.reporting.report import pooled_table, source_table, write_page, write_tables
from ctlab.reporting.verification import (
    claim_checklist,
    detectable_difference,
    git_commit,
    rebuild_table,
    save_provenance,
    scan_metadata,
    subgroup_table,
    verify_reports,
)


@pytest.fixture(scope='module')
def study():
    """(answers of three folds, class numbers)."""
    frame = labels(n=48, seed=6)
    p = answers(frame, 1.2, 6).reset_index()
    parts = []
    for fold in range(3):
        for split, chosen in (('valid', p.index % 3 == fold), ('train', p.index % 3 != fold)):
            parts.append(p[chosen].assign(series_id=p['patient_id'] * 10, split=split, fold=fold, extra='x'))
    return pd.concat(parts, ignore_index=True), class_labels(frame)


@pytest.fixture
def report(study, tmp_path):
    rows, graded = study
    table = source_table(pooled_table(rows, graded), 'approach1')
    place = (tmp_path / 'out', 'approach1-tiny', 'A note.')
    write_tables(table, *place)
    write_page(table, {}, *place, {})
    kept = save_provenance(rows, *place, graded, 'approach1')
    assert kept == [tmp_path / 'out' / 'approach1-tiny.parquet', tmp_path / 'out' / 'approach1-tiny.json']
    return tmp_path / 'out'


def test_what_is_kept(report, study):
    rows, graded = study
    kept = pd.read_parquet(report / 'approach1-tiny.parquet')
    assert list(kept.columns) == [
        'patient_id',
        'series_id',
        'split',
        'fold',
        *LABEL_COLUMNS,
        *(f'true_{t}' for t in TARGETS),
    ]
    assert np.allclose(kept[LABEL_COLUMNS], rows[LABEL_COLUMNS]) and len(kept) == len(rows)
    for target in TARGETS:
        assert (kept[f'true_{target}'].to_numpy() == graded.loc[rows['patient_id'], target].to_numpy()).all()
    facts = json.loads((report / 'approach1-tiny.json').read_text())
    assert facts == {
        'kind': 'injuries',
        'published': 'approach1',
        'note': 'A note.',
        'commit': git_commit(),
        'sha256': hashlib.sha256((report / 'approach1-tiny.parquet').read_bytes()).hexdigest(),
    }
    assert rebuild_table(kept, 'injuries', None, 'x').equals(source_table(pooled_table(rows, graded), None))


def test_numbers_are_kept_in_64_bits_and_masks_as_they_are(tmp_path):
    rows = pd.DataFrame({'case': ['a'], 'structure': ['liver'], 'split': ['test'], 'dice': np.float32([0.1])})
    save_provenance(rows, str(tmp_path), 'liver-tiny', 'A note.')
    kept = pd.read_parquet(tmp_path / 'liver-tiny.parquet')
    assert kept['dice'].dtype == np.float64 and list(kept.columns) == list(rows.columns)
    facts = json.loads((tmp_path / 'liver-tiny.json').read_text())
    assert (facts['kind'], facts['published']) == ('masks', None)
    assert (tmp_path / 'liver-tiny.json').read_text().startswith('{\n "kind"')
    seen = []

    def table(rows, study):
        seen.append(study)
        return pd.DataFrame({'Dice': [f'{rows["dice"].iloc[0]:.3f}']}, index=pd.Index(['liver'], name='structure'))

    write_tables(table(kept, ''), tmp_path, 'liver-tiny', 'A note.')
    assert verify_reports(tmp_path, table) == {'liver-tiny': []} and seen[-1] == 'liver'
    assert verify_reports(tmp_path / 'liver-tiny.md') == {
        'liver-tiny': [
            "liver-tiny.parquet: no table can be made from it (TypeError: 'NoneType' object is not callable)"
        ]
    }


def test_a_true_report_is_true(report):
    for which in (
        report,
        report / 'approach1-tiny.csv',
        report / 'approach1-tiny.html',
        str(report / 'approach1-tiny.json'),
    ):
        assert verify_reports(which) == {'approach1-tiny': []}
    (report / 'approach1-tiny.html').unlink()
    assert verify_reports(report) == {'approach1-tiny': []}, 'a report may have no page'


@pytest.mark.parametrize('ending', ['csv', 'md', 'tex'])
def test_one_changed_character_is_found_in_every_file(report, ending):
    path = report / f'approach1-tiny.{ending}'
    said = path.read_text()
    at = next(k for k in range(len(said) // 2, len(said)) if said[k].isdigit())
    changed = said[:at] + str((int(said[at]) + 1) % 10) + said[at + 1 :]
    path.write_text(changed)
    number = said[:at].count('\n')
    assert verify_reports(report) == {
        'approach1-tiny': [
            f'{path.name}, line {number + 1}: says {changed.splitlines()[number]!r}, '
            f'the answers give {said.splitlines()[number]!r}'
        ]
    }
    path.write_text(said + 'more\n')
    n = len(said.splitlines())
    assert verify_reports(report) == {'approach1-tiny': [f'{path.name}: {n + 1} lines, the answers give {n}']}
    path.unlink()
    assert verify_reports(report) == {'approach1-tiny': [f'{path.name}: is missing']}


def test_one_changed_cell_of_the_page(report):
    path = report / 'approach1-tiny.html'
    said, first = path.read_text(), pd.read_csv(report / 'approach1-tiny.csv').iloc[0, 2]
    path.write_text(said.replace(html.escape(first), '99.9 [1, 2]', 1))
    assert verify_reports(report) == {
        'approach1-tiny': [f"approach1-tiny.html: says '99.9 [1, 2]', the answers give {first!r}"]
    }
    cells = verification.re.findall(r'<td[^>]*>.*?</td>', said)
    path.write_text(
        said.replace(cells[-1], '', 1)
        if said.count(cells[-1]) == 1
        else said.replace('</td></tr></tbody>', '</td><td>7</td></tr></tbody>', 1)
    )
    wrong = verify_reports(report)['approach1-tiny']
    assert wrong and any('cells, the answers give' in w for w in wrong)


def test_other_answers_and_unreadable_ones(report):
    parquet, facts = report / 'approach1-tiny.parquet', report / 'approach1-tiny.json'
    rows, told = pd.read_parquet(parquet), json.loads(facts.read_text())
    rows.iloc[:-1].to_parquet(parquet, index=False)
    assert verify_reports(report) == {
        'approach1-tiny': ['approach1-tiny.parquet: is not the file that the report was made from']
    }
    rows.drop(columns='true_liver').to_parquet(parquet, index=False)
    facts.write_text(json.dumps(told | {'sha256': hashlib.sha256(parquet.read_bytes()).hexdigest()}))
    assert verify_reports(report)['approach1-tiny'][0].startswith(
        'approach1-tiny.parquet: no table can be made from it (KeyError: '
    )
    facts.write_text('{')
    assert verify_reports(report)['approach1-tiny'][0].startswith('approach1-tiny.json: not readable (')
    facts.unlink()
    for which in (report, report / 'approach1-tiny.csv'):
        with pytest.raises(FileNotFoundError) as error:
            verify_reports(which)
        assert str(error.value) == (
            f'{which}: no proof beside it (NAME.parquet and NAME.json); write the report with ctlab report'
        )
    with pytest.raises(FileNotFoundError) as error:
        verify_reports(report / 'x.csv')
    assert str(error.value) == f'{report / "x.csv"}: no such file or folder'


def test_which_commit(tmp_path, monkeypatch):
    def git(*a):
        return subprocess.run(
            ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *a],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    monkeypatch.setattr(verification, 'project_root', lambda: tmp_path)
    assert git_commit() == ''
    (tmp_path / 'a').write_text('1')
    for command in (['init', '-q'], ['add', 'a'], ['commit', '-q', '-m', 'x']):
        git(*command)
    assert git_commit() == git('rev-parse', '--short', 'HEAD') and len(git_commit()) >= 7
    (tmp_path / 'b').write_text('1')
    assert not git_commit().endswith('+'), 'a new file is no change'
    (tmp_path / 'a').write_text('2')
    assert git_commit() == git('rev-parse', '--short', 'HEAD') + '+'

    def gone(*a, **k):
        raise OSError

    monkeypatch.setattr(verification.subprocess, 'run', gone)
    assert git_commit() == ''

    def slow(*a, **k):
        raise subprocess.TimeoutExpired('git', 20)

    monkeypatch.setattr(verification.subprocess, 'run', slow)
    assert git_commit() == ''


def cohort(root, thickness):
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    for k, thick in enumerate(thickness, 1):
        scan = make_volume(np.zeros((4, 4, 4), np.int16), (thick or 2.0, 1.0, 1.0))
        write_series(
            scan,
            root / 'train_images' / str(100 + k) / str(k),
            str(k),
            tags={} if thick else {'SliceThickness': None},
        )
    return root


def test_what_is_known_of_scans(tmp_path):
    root = cohort(tmp_path / 'cohort', (1.0, 1.5, 1.6, 3.0, 5.0, None))
    facts = scan_metadata(root, [1, 2, 3, 4, 5, 6])
    assert list(facts.columns) == ['slice thickness'] and facts.index.name == 'series_id'
    assert facts['slice thickness'].tolist()[:5] == ['up to 1.5 mm'] * 2 + ['1.5 to 3 mm'] * 2 + ['above 3 mm']
    assert pd.isna(facts['slice thickness'].iloc[5])
    pd.DataFrame(
        {
            'patient_id': [101, 101, 102, 103],
            'series_id': [1, 1, 2, 3],
            'aortic_hu': [200.0, 5, 199.9, np.nan],
            'incomplete_organ': [0, 1, 1, 0],
        }
    ).to_csv(root / 'train_series_meta.csv', index=False)
    facts = scan_metadata(str(root), [1, 2, 3, 4])
    assert list(facts.columns) == ['phase', 'field of view', 'slice thickness'] and list(facts.index) == [1, 2, 3, 4]
    assert facts['phase'].tolist()[:2] == ['arterial (aorta ≥ 200 HU)', 'later or none']
    assert facts['phase'].isna().sum() == 2
    assert facts['field of view'].tolist()[:3] == ['complete', 'an organ is cut', 'complete'] and pd.isna(
        facts['field of view'][4]
    )


def test_subgroups(study):
    rows, graded = study
    held = rows[rows['split'] == 'valid']
    series = held['series_id'].to_numpy()
    facts = pd.DataFrame(
        {'phase': np.where(np.arange(48) < 40, 'a', 'b'), 'size': [None] * 8 + ['c'] * 40},
        index=pd.Index(series, name='series_id'),
    )
    table = subgroup_table(rows, graded, facts, n=50)
    assert list(table.columns) == ['by', 'group', 'scans', 'patients', *TARGETS]
    assert table[['by', 'group', 'scans', 'patients']].values.tolist() == [
        ['phase', 'a', 40, 40],
        ['phase', 'b', 8, 8],
        ['size', 'c', 40, 40],
    ]
    part = held[held['series_id'].isin(facts.index[facts['phase'] == 'a'])]
    for target in TARGETS:
        injured = (graded.loc[part['patient_id'], target].to_numpy() > 0).astype(int)
        wanted = '{:.2f} [{:.2f}, {:.2f}]'.format(
            *bootstrap(
                'auc_roc', injured, 1 - part[f'{target}_healthy'].to_numpy(), part['patient_id'].to_numpy(), n=50
            )
        )
        assert table[target].iloc[0] == (wanted if min(injured.sum(), 40 - injured.sum()) >= 8 else 'too few')
    assert (table.iloc[1][list(TARGETS)] == 'too few').all()
    injured = int((graded.loc[part['patient_id'], 'liver'] > 0).sum())
    least = min(injured, 40 - injured)
    assert subgroup_table(rows, graded, facts, least, n=20)['liver'].iloc[0] != 'too few'
    assert subgroup_table(rows, graded, facts, least + 1, n=20)['liver'].iloc[0] == 'too few'
    assert subgroup_table(rows, graded, facts).shape == table.shape and subgroup_table(rows, graded, facts[[]]).empty
    assert (
        subgroup_table(rows, graded, facts)['liver'].iloc[0]
        == subgroup_table(rows, graded, facts, 8, 1000)['liver'].iloc[0]
    )


def test_what_could_have_been_seen(study):
    rows, graded = study
    table = detectable_difference(rows, graded, n=200)
    held = rows[rows['split'] == 'valid']
    assert list(table.columns) == ['target', 'patients', 'injured', 'AUC', 'standard error', 'smallest difference']
    assert list(table['target']) == list(TARGETS) and set(table['patients']) == {48}
    for row in table.itertuples():
        injured = (graded.loc[held['patient_id'], row.target].to_numpy() > 0).astype(int)
        value, low, high = bootstrap(
            'auc_roc', injured, 1 - held[f'{row.target}_healthy'].to_numpy(), held['patient_id'].to_numpy(), n=200
        )
        error = (high - low) / (2 * norm.ppf(0.975))
        assert (row.AUC, row[5], row.injured) == pytest.approx((value, error, injured.sum()))
        assert row[6] == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error), 'errors that correlate by a half'
    loose = detectable_difference(rows, graded, 0.9, 0.0, 200)
    assert loose['smallest difference'].to_numpy() == pytest.approx(
        (norm.ppf(0.975) + norm.ppf(0.9)) * loose['standard error'].to_numpy() * 2**0.5
    )
    twice = pd.concat([rows, rows.assign(series_id=rows['series_id'] + 1)])
    assert list(detectable_difference(twice, graded, n=20)['injured']) == list(table['injured']), (
        'patients are counted, not scans'
    )
    assert 'liver' not in set(detectable_difference(rows, graded.assign(liver=0), n=20)['target'])
    assert detectable_difference(rows, graded).equals(detectable_difference(rows, graded, 0.8, 0.5, 1000))


CONFIG = {
    'study': 'approach1_cleaned',
    'phantom': True,
    'scans': {'set_aside': 3},
    'data': 'tiny',
    'n_folds': 4,
    'seed': 7,
    'preset': 'tiny',
    'weights': 'random',
    'epochs': 5,
    'best_epoch': 4,
    'batch': 8,
    'learning_rate': 0.001,
    'seconds': 90.0,
}
ANSWERS = {
    1: 'approach1_cleaned: a deep-learning study',
    7: 'phantoms (drawn, not patients); tiny',
    8: '3 scans set aside, each with its reason',
    9: 'slices on a regular grid, a fixed window, by ctlab.cohort.stacks; see the chapter Preparing',
    12: 'absent slices are interpolated up to a quarter of a scan, else the scan is set aside; no label is imputed',
    13: 'per scan in the DICOM headers; by phase, thickness and field of view under Subgroups',
    16: 'drawn together with the phantom',
    19: '4 folds, stratified by injuries, seed 7; stored, and checked at load',
    20: 'patient: a patient on both sides is an error',
    21: 'not planned; the smallest difference that would show is under Power',
    22: 'module ctlab.trauma.approach1, preset tiny',
    23: 'torch 2.1, numpy 2.0, Python 3.11',
    24: 'random weights',
    25: '5 epochs, batches of 8, learning rate 0.001, augmentation as in the chapter; 3 minutes for 2 folds',
    26: 'the last epoch',
    27: 'none within a fold',
    28: 'accuracy, AUC-ROC, F1, precision, recall per target; the competition metric',
    29: '95 % intervals by bootstrap over patients, 2,000 resamples; paired tests by ctlab compare (DeLong, bootstrap)',
    30: 'by subgroup below; ablations in the chapter where there are any',
    31: 'Grad-CAM of the worst misses in the chapter',
    32: 'each of 48 phantoms (drawn, not patients) held out once',
    33: 'none in this report',
    35: '48 phantoms (drawn, not patients), 48 scans; 3 scans set aside',
    36: 'prevalence of injuries under Power; nothing else is known of phantoms',
    37: 'the table on this page',
    38: 'the table on this page',
    39: 'confusion matrices on this page; the worst misses in the chapter',
    42: 'commit abc; config.json and environment.json of every fold',
    43: 'all of the code, and the weights of every fold, as safetensors',
}


def test_the_checklist_to_the_word(study):
    rows, _ = study
    table = claim_checklist(
        [CONFIG, CONFIG], rows, {'versions': {'torch': '2.1', 'numpy': '2.0', 'none': None}, 'python': '3.11'}, 'abc'
    )
    assert list(table.columns) == ['item', 'asked', 'answer'] and table['item'].tolist() == list(range(1, 45))
    assert {i: a for i, a in zip(table['item'], table['answer']) if a} == ANSWERS
    assert table['asked'].iloc[[0, 43]].tolist() == [
        'Identification as a study of AI, with the category of technology',
        'Funding',
    ]
    real = CONFIG | {'phantom': False, 'best_epoch': 2, 'data_root': '/data/rsna'}
    del real['data'], real['scans']
    told = claim_checklist([real], rows, {}).set_index('item')['answer']
    assert (
        told[7] == 'patients; /data/rsna'
        and told[16] == 'the label table of the data set'
        and told[8].startswith('0 scans')
    )
    assert (
        told[26] == 'the epoch of least loss on the held-out fold, so its score is optimistic'
        and told[23] == ', Python '
    )
    assert (
        told[36] == 'prevalence of injuries under Power'
        and told[42].startswith('commit unknown;')
        and told[32] == 'each of 48 patients held out once'
    )
    bare = {k: v for k, v in CONFIG.items() if k not in ('phantom', 'data', 'epochs', 'best_epoch')}
    told = claim_checklist([bare], rows, {}).set_index('item')['answer']
    assert told[7] == 'patients; ' and told[26].startswith('the epoch of least loss')
