"""Studies as an engineer runs them: papermill over folds, from nothing, through kills."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import start_script

APPROACHES = ('approach1', 'approach2', 'approach3', 'approach4', 'approach5', 'approach6', 'approach7')


@pytest.mark.parametrize('study', APPROACHES)
def test_papermill_runs_every_fold_and_the_report_gathers_them(ctlab, tiny, tmp_path, study, request):
    """Every fold of the first and the last approach; the others differ in what a fold does, and one tells that."""
    folds = (0, 1) if study in (APPROACHES[0], APPROACHES[-1]) else (1,)
    if study == 'approach1':
        shutil.copytree(request.getfixturevalue('finished_runs'), tmp_path / 'runs')
    else:
        which = ('--folds', 'all' if len(folds) == 2 else '1', '--jobs', len(folds), '--out', tmp_path / 'notebooks')
        parameters = ('-p', 'out_dir', tmp_path / 'runs', '-p', 'n_folds', 2)
        ended = ctlab('run', study, *which, *parameters, env={'OMP_NUM_THREADS': '1'})
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for fold in folds:
        folder = tmp_path / 'runs' / study / 'tiny' / f'fold{fold}'
        metrics = pd.read_csv(folder / 'metrics.csv')
        assert list(metrics.columns) == ['study', 'fold', 'target', 'split', 'metric', 'value', 'low', 'high', 'n']
        assert set(metrics['split']) == {'train', 'valid'} and set(metrics['fold']) == {fold}
        config = json.loads((folder / 'config.json').read_text())
        weights = 'lesion network (19_wounds)' if study == 'approach7' else 'random'
        assert config['phantom'] and config['weights'] == weights
        assert {'predictions.parquet', 'environment.json', 'weights.safetensors'} <= {p.name for p in folder.iterdir()}
    stored = (tmp_path / 'runs' / study / 'tiny').glob('fold*/predictions.parquet')
    held = pd.concat([pd.read_parquet(p).query("split == 'valid'") for p in stored])
    assert held['series_id'].is_unique  # every scan is held out once
    ended = ctlab('report', study, '--out-dir', tmp_path / 'runs')
    assert ended.returncode == 0, ended.stderr
    table = (tmp_path / 'runs' / study / 'tiny' / f'{study}-tiny.md').read_text()
    page = (tmp_path / 'runs' / study / 'tiny' / f'{study}-tiny.html').read_text()
    assert page.count('data:image/png') == 3 and 'http' not in page
    assert all(w in page for w in ('In subgroups', 'Power', 'CLAIM', 'checked by ctlab verify'))
    told = tmp_path / 'runs' / study / 'tiny' / f'{study}-tiny.csv'
    assert ctlab('verify', told).returncode == 0
    assert 'phantoms' in table and ('published' in table) == (study not in APPROACHES[4:])
    if study == 'approach1':
        changed_digit(ctlab, told)
        predict_and_check(ctlab, tiny, tmp_path)
        read_by_rule(tiny, tmp_path)


def changed_digit(ctlab, told):
    """One digit of a table that is not what the answers give is found."""
    said = told.read_text()
    at = next(k for k in range(len(said) - 1, 0, -1) if said[k].isdigit())
    told.write_text(said[:at] + str((int(said[at]) + 1) % 10) + said[at + 1 :])
    ended = ctlab('verify', told)
    assert ended.returncode == 1 and told.name in ended.stderr


def read_by_rule(tiny, tmp_path):
    """Send a series, let the run judge it, and read the report's probabilities."""
    import highdicom as hd

    from ctlab.network.auto_inference import InferenceRule, InferenceWorker, RuleSet
    from ctlab.network.store import Store

    store, predicted = Store(tmp_path / 'store', free=0), pd.read_csv(tmp_path / 'b' / 'predictions.csv')
    for path in sorted(next((tmp_path / 'new' / 'train_images').glob('*/*')).iterdir()):
        store.add(path.read_bytes())
    reader = InferenceWorker(
        store,
        RuleSet(
            (InferenceRule('trauma', do='predict', model=str(tmp_path / 'runs' / 'approach1' / 'tiny')),), quiet=0.0
        ),
        tries=1,
    )
    assert reader.enqueue_studies() == 1
    while reader.process_next():
        pass
    assert reader.state() == {'kept': 1}, store.db.execute('SELECT words FROM work').fetchall()
    report = hd.sr.srread(next(f['path'] for f in store.find('IMAGE') if f['Modality'] == 'SR'))
    said = {
        g.tracking_identifier: float(g.get_measurements()[0].value)
        for g in report.content.get_image_measurement_groups()
    }
    wanted = {f'{r.target} {r.grade}': r.probability for r in predicted.itertuples() if r.grade != 'healthy'}
    assert set(said) == set(wanted) and all(abs(said[k] - v) < 2e-3 for k, v in wanted.items())


def predict_and_check(ctlab, tiny, tmp_path):
    """Apply the run to a folder with one series and to a cohort without labels."""
    import shutil

    cohort = tmp_path / 'new'
    for patient in sorted((tiny / 'train_images').iterdir())[:2]:
        shutil.copytree(patient, cohort / 'train_images' / patient.name)
    one = next((cohort / 'train_images').glob('*/*'))
    for source, name in ((cohort, 'a'), (one, 'b')):
        ended = ctlab(
            'predict',
            source,
            '--model',
            tmp_path / 'runs' / 'approach1' / 'tiny',
            '--out',
            tmp_path / name,
            '--work',
            tmp_path / 'work',
        )
        assert ended.returncode == 0, ended.stderr
        table = pd.read_csv(tmp_path / name / 'predictions.csv')
        assert (table['low'] <= table['probability'] + 1e-4).all() and (
            table['probability'] <= table['high'] + 1e-4
        ).all()
        assert table.groupby(['series_id', 'target'])['probability'].sum().sub(1).abs().max() < 1e-3
        page = (tmp_path / name / 'predictions.html').read_text()
        assert 'Trained on phantoms' in page and 'data:image/png' in page and 'http' not in page
        sheets = (tmp_path / name / 'predictions.pdf').read_bytes()
        assert (
            sheets.startswith(b'%PDF-') and len(re.findall(rb'/Type /Page\b', sheets)) == table['series_id'].nunique()
        )
    ended = ctlab('predict', one, '--model', tmp_path / 'nothing')
    assert ended.returncode == 1 and 'no finished run' in ended.stderr


def test_a_start_from_phantoms_is_asked_for_by_name(ctlab, tiny, tmp_path):
    """Made once, taken by the studies that can, recorded; refused where it is not there or does not fit."""
    where = ('-p', 'out_dir', tmp_path / 'runs', '-p', 'work_dir', tmp_path / 'work', '--out', tmp_path / 'notebooks')
    ended = ctlab('run', '03_approach1', '-p', 'start', 'phantoms', *where)
    assert ended.returncode == 1 and 'ctlab run 13_start -p preset tiny' in ended.stdout + ended.stderr
    assert ctlab('run', '13_start', *where).returncode == 0
    assert ctlab('run', '03_approach1', '-p', 'start', 'phantoms', *where).returncode == 0
    runs = tmp_path / 'runs'
    config = json.loads((runs / 'approach1' / 'tiny' / 'fold0' / 'config.json').read_text())
    assert config['start'] == 'phantoms' and 'pretrained on phantoms' in config['weights']
    ended = ctlab('report', 'approach1', '--out-dir', runs)
    assert '-p start phantoms' in (runs / 'approach1' / 'tiny' / 'approach1-tiny.md').read_text(), ended.stderr
    from ctlab.learn.networks import VolumeNet

    with pytest.raises(ValueError, match='r3d_18'):
        VolumeNet(runs / 'start' / 'tiny' / 'fold0' / 'weights.safetensors')


TRAUMA = """
from ctlab.trauma.approach1 import load_data, make_plan
from ctlab.core.settings import Settings
from ctlab.trauma.study import train_fold
settings = Settings(work_dir=sys.argv[1], out_dir=sys.argv[2], epochs=4, seed=5, device='cpu')
data = load_data(settings)
train_fold(settings, replace(data, table=data.table.groupby('fold').head(4)), make_plan('tiny'))
"""
MASKS = """
from ctlab.organs.liver3d import make_plan, run
from ctlab.learn.networks import UNet3D
from ctlab.core.settings import Settings
settings = Settings(work_dir=sys.argv[1], out_dir=sys.argv[2], epochs=4, seed=5, device='cpu', workers=1)
run(settings, replace(make_plan(settings), samples_per_epoch=12, window=16, net=lambda: UNet3D(1, 1, 4)))
"""
TRAINING = """
import sys, torch
from dataclasses import replace
torch.set_num_threads(1)
if __name__ == '__main__':
"""


@pytest.mark.parametrize(
    'code, place', [(TRAUMA, 'approach1/tiny/fold0'), (MASKS, 'liver3d/tiny/fold0')], ids=['trauma', 'masks']
)
def test_a_killed_training_resumes_as_if_undisturbed(tiny, tmp_path, code, place):
    """The same losses in every epoch, the same weights and the same scores, to the last digit, killed twice."""
    import torch

    script = tmp_path / 'training.py'
    script.write_text(TRAINING + ''.join(f'    {line}\n' for line in code.strip().splitlines()))

    def start(out):
        return start_script(script, tmp_path / 'work', tmp_path / out)

    def run(out):
        process = start(out)
        process.join()
        assert process.exitcode == 0

    run('whole')
    folders = [tmp_path / n / place for n in ('whole', 'killed')]

    def epochs():
        return len(pd.read_csv(folders[1] / 'history.csv')) if (folders[1] / 'history.csv').exists() else 0

    last = folders[1] / 'checkpoints' / 'last.ckpt'

    def written():
        return last.stat().st_mtime_ns if last.exists() else None

    for _ in range(2):
        before = written()
        process = start('killed')
        while process.exitcode is None and written() == before:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert epochs() < 4 and not (folders[1] / 'metrics.csv').exists(), 'killed too late to test anything'
    run('killed')
    for name in ('history.csv', 'metrics.csv'):
        pd.testing.assert_frame_equal(*(pd.read_csv(f / name) for f in folders))
    whole, killed = (torch.load(f / 'checkpoints' / 'last.ckpt', weights_only=True) for f in folders)
    assert whole['epoch'] == killed['epoch'] == 3
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, killed['state_dict'][name]), name


PARALLEL = """
import sys, torch
from pathlib import Path
from torch.utils.data import DataLoader, Dataset
from ctlab.learn.training import Learner, fit

class Rows(Dataset):
    def __len__(self): return 24
    def __getitem__(self, k):
        x = torch.randn(6, generator=torch.Generator().manual_seed(k))
        return {'image': x, 'y': x.sum()}

class Loss(torch.nn.Module):
    def forward(self, out, batch): return {'total': ((out[:, 0] - batch['y'])**2).mean()}

if __name__ == '__main__':
    devices = int(sys.argv[2])
    torch.manual_seed(0)
    learner = Learner(torch.nn.Linear(6, 1), Loss(), 1e-2)
    loaders = [DataLoader(Rows(), 24//devices) for _ in range(2)]
    fit(learner, *loaders, sys.argv[1], 12, 'cpu', devices=devices)
    torch.save(learner.net.state_dict(), Path(sys.argv[1])/f'rank{learner.global_rank}.pt')
"""


def test_two_processes_learn_what_one_learns(tmp_path):
    """Data-parallel training over two CPU processes, against one process that takes the same 24 rows a step."""
    import torch

    script = tmp_path / 'parallel.py'
    script.write_text(PARALLEL)
    alone = start_script(script, tmp_path / '1', 1)
    command = [sys.executable, str(script), str(tmp_path / '2'), '2']  # which starts a second one like itself
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    alone.join()
    assert alone.exitcode == 0
    one, two = (torch.load(tmp_path / str(n) / 'rank0.pt', weights_only=True) for n in (1, 2))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    assert (tmp_path / '2' / 'rank1.pt').exists()


def test_a_run_on_the_real_layout_needs_no_truth_folder(ctlab, tiny, tmp_path):
    """The cohort without what only phantoms have is a cohort like the real download."""
    import shutil

    plain = tmp_path / 'download'
    plain.mkdir()
    for name in ('train_2024.csv', 'train_series_meta.csv', 'image_level_labels.csv'):
        shutil.copy(tiny / name, plain / name)
    (plain / 'train_images').symlink_to(tiny / 'train_images')
    ended = ctlab('run', '00_eda', '-p', 'data_root', plain, '-p', 'work_dir', tmp_path / 'work', '--out', tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert sorted(p.name for p in plain.iterdir()) == [
        'image_level_labels.csv',
        'train_2024.csv',
        'train_images',
        'train_series_meta.csv',
    ]


def test_a_script_without_its_guard_says_so(tmp_path):
    """Its workers read it again; they must not wait for the lock that their parent holds."""
    script = tmp_path / 'bare.py'
    script.write_text(
        'import sys\nfrom ctlab.core.files import exclusive_lock\n'
        'from ctlab.core.parallel import parallel_map\n'
        'with exclusive_lock(sys.argv[1]): print(parallel_map(abs, [1, 2, 3, 4], 2))\n'
    )
    ended = subprocess.run([sys.executable, script, tmp_path / 'place'], capture_output=True, text=True, timeout=600)
    assert ended.returncode and "under if __name__ == '__main__'" in ended.stderr


def test_every_reference_follows_from_its_answers(root, ctlab):
    """Each committed table of a study has its answers beside it, and they give it to the digit."""
    folder = root / 'reports' / 'reference'
    tables = {p.stem for p in folder.glob('*-demo.md')}
    assert len(tables) > 15 and not [t for t in tables if not (folder / f'{t}.parquet').exists()]
    ended = ctlab('verify', folder)
    assert ended.returncode == 0 and all(t in ended.stdout for t in tables), ended.stdout + ended.stderr
