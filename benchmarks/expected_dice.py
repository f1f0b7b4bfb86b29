"""Learn to expect the Dice of the organ model's masks: hard scans, features, a fit, and how well it holds.

    python benchmarks/expected_dice.py FOLDER [--scans 300] [--tests 120] [--work work]

FOLDER holds label maps of patients (see the chapter on bodies around them). Nine tenths of the maps and new drawn
bodies make the scans that are learned from; bodies around the last tenth and further drawn bodies make the scans that
judge. Everything is kept under WORK/expected_dice, so that a killed run goes on. Written are
ctlab/organs/expected_dice.safetensors and reports/reference/expected-dice.csv, one row for each organ of each scan
that judges, and the same for the organs beside the six: expected_dice_more.safetensors and expected-dice-more.csv.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ctlab.core.anatomy import STRUCTURE_CODES
from ctlab.core.files import atomic_path, file_hash
from ctlab.core.parallel import parallel_map
from ctlab.core.settings import project_root
from ctlab.judge.metrics import dice, roc_auc
from ctlab.organs.expected_dice import FEATURES, fit_expected_dice, organ_features, predict_expected_dice
from ctlab.organs.more_structures import EXTRA_ORGANS, STRUCTURES, label_voxels, look_beside, more_features
from ctlab.organs.organ_model import (
    class_probabilities,
    join_networks,
    load_shipped_network,
    postprocess,
    reassign_islands,
    reduce_to_organs,
    shipped_weights_file,
    trunk_classes,
)
from ctlab.phantoms.body import DETAILS
from ctlab.phantoms.patient_bodies import make_patient_bodies
from ctlab.phantoms.synthesis import CLASSES, ORGANS, Randomization, Synthesis, make_body_pool
from ctlab.scans.volume import make_volume

HARD = Randomization(noise=1.3, thick=0.45, slab=0.35, arms=0.4, metal=0.12)
SHAPE = (128, 96, 128)  # voxels of 3 mm: a whole trunk
TISSUES = {
    'lung': ('lung',),
    'bone': ('bone_cortex', 'bone_marrow'),  # spine and other bones
    'muscle': ('muscle',),
    'subcutaneous_fat': ('fat',),
    'visceral_fat': ('peritoneum',),
}  # structure -> what it is in a drawn body


@functools.cache
def synthesis(maps, work, split):
    """Build the generator of a split; bodies are made once and kept."""
    held = max(1, len(maps) // 10)
    learned, judged = list(maps[:-held]), list(maps[-held:])
    if split == 'calibrate':
        pool = make_patient_bodies(learned, 100, work, 3.0, True, 50_000, 1) + make_body_pool(30, work, 3.0, 3000, 1)
    else:
        pool = make_patient_bodies(judged, 3 * held, work, 3.0, False, 80_000, 1)
        pool += make_patient_bodies(judged, 15, work, 3.0, True, 81_000, 1) + make_body_pool(12, work, 3.0, 4000, 1)
    return Synthesis(pool, SHAPE, 3.0, HARD)


def make_scan(maps, work, split, k):
    """Make a scan and its truth, without the empty slices above and below."""
    rng, maker = np.random.default_rng([k, {'calibrate': 11, 'test': 12}[split]]), synthesis(maps, work, split)
    tissue = maker.warp(rng)
    hu, truth = maker.render(tissue, rng).numpy(), maker.classes[tissue].numpy().astype(np.uint8)
    scanned = np.flatnonzero((hu > -300).any((1, 2)))
    within = slice(scanned[0], scanned[-1] + 1)
    drawn = (tissue.numpy() // len(DETAILS)).astype(np.uint8)
    return {'hu': hu[within].round().astype(np.int16), 'truth': truth[within], 'drawn': drawn[within]}


def keep_scan(maps, work, split, k):
    """Make a scan; what is there already stays."""
    kept = Path(work) / 'expected_dice' / f'{split}-{k:04d}.npz'
    if not kept.exists():
        save_whole(kept, **make_scan(maps, work, split, k))
    return kept


def keep_answer(kept, grid):
    """Ask the first network about a scan; an answer of these very weights stays."""
    answer = kept.with_name(f'{kept.stem}-{file_hash(shipped_weights_file())[:8]}.npz')
    if not answer.exists():
        first = class_probabilities(load_shipped_network(), grid)
        save_whole(answer, first=(255 * first).round().to(torch.uint8).numpy())
    return torch.from_numpy(np.load(answer)['first']).float() / 255


def save_whole(path, **arrays):
    """Write arrays; a killed run leaves no half a file under the name."""
    with atomic_path(path) as half:
        np.savez_compressed(half, **arrays)


def scan_and_measure(task):
    """Make a scan, ask both networks, and measure."""
    torch.set_num_threads(1)
    return measure(keep_scan(*task), *task[2:])


def measure(kept, split, k):
    """Measure the evidence and the truth of every structure in a scan."""
    data = np.load(kept)
    grid, truth = make_volume(data['hu'].astype(np.float32), (3.0, 3.0, 3.0)), data['truth']
    answers = [keep_answer(kept, grid), trunk_classes(grid)]
    first, second = (reduce_to_organs(p, p.shape[1:]) for p in answers)
    p, alone = join_networks(grid, first, second), join_networks(grid, first)
    chosen = reassign_islands(p)
    labels, before = (postprocess(q.argmax(0).numpy().astype(np.uint8)) for q in (chosen, reassign_islands(alone)))
    rows = []
    for organ, numbers in organ_features(grid, p, labels, second).items():
        n = ORGANS.index(organ) + 1
        row = {'split': split, 'scan': k, 'organ': organ, 'dice': dice(labels == n, truth == n)}
        row |= {'present': bool((truth == n).any()), 'dice without the trunk network': dice(before == n, truth == n)}
        rows.append(row | dict(zip(FEATURES, map(float, numbers))))
    look = look_beside(grid, answers, np.zeros(len(grid.array), bool), chosen)
    return rows + [{'split': split, 'scan': k} | row for row in measure_more(grid, look, labels, data)]


def measure_more(grid, look, labels, data):
    """Measure the evidence and the truth of the structures beside the six organs."""
    numbers, features = label_voxels(grid, look, labels), more_features(look)
    for name in (*EXTRA_ORGANS, *TISSUES):
        mine = numbers == 1 + STRUCTURES.index(name)
        if name == 'bone':
            mine |= numbers == 1 + STRUCTURES.index('spine')
        parts = (CLASSES | TISSUES).get(name, (name,))
        true = np.isin(data['drawn'], [STRUCTURE_CODES[n] for n in parts])
        row = {'organ': name, 'dice': dice(mine, true), 'present': bool(true.any())}
        if name in features:
            yield row | dict(zip(FEATURES, map(float, features[name])))
        elif name in TISSUES and true.any():
            yield row


def main():
    """Make, learn, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--scans', type=int, default=300)
    parser.add_argument('--tests', type=int, default=120)
    parser.add_argument('--work', default='work')
    parser.add_argument('--workers', type=int, default=0)
    asked = parser.parse_args()
    maps, work = tuple(sorted(asked.folder.glob('*.nii.gz'))), str(Path(asked.work).resolve())
    (Path(work) / 'expected_dice').mkdir(parents=True, exist_ok=True)
    counts = {'calibrate': asked.scans, 'test': asked.tests}
    tasks = [(maps, work, split, k) for split, n in counts.items() for k in range(n)]
    found = parallel_map(scan_and_measure, tasks, asked.workers, 'scans')
    table = pd.DataFrame([row for rows in found for row in rows])
    for name, known in (('expected_dice', ORGANS), ('expected_dice_more', EXTRA_ORGANS)):
        learn_and_judge(table[table['organ'].isin(known)], name, known)
    print(table[table['organ'].isin(TISSUES)].groupby('organ')['dice'].describe().round(3))


def learn_and_judge(table, name, known):
    """Fit the estimator of some organs, and write it with what it says of the scans that judge."""
    learned, judged = (table[table['split'] == split].copy() for split in ('calibrate', 'test'))
    stored = fit_expected_dice(
        learned['scan'].to_numpy(),
        list(learned['organ']),
        learned[list(FEATURES)].to_numpy(),
        learned['dice'].to_numpy(),
        known=known,
    )
    write(stored, judged, name, known)


def write(stored, judged, name, known):
    """Store the estimator and what it says of the scans that judge."""
    from safetensors.numpy import save_file

    root = project_root()
    save_file(stored, root / 'ctlab' / 'organs' / f'{name}.safetensors')
    said = [
        predict_expected_dice(stored, {r['organ']: np.array([r[f] for f in FEATURES], np.float32)}, known)[r['organ']]
        for r in judged.to_dict('records')
    ]
    judged[['expected', 'low', 'high']] = [(e.dice, e.low, e.high) for e in said]
    columns = ['scan', 'organ', 'present', 'dice', 'dice without the trunk network', 'expected', 'low', 'high']
    if known != ORGANS:
        columns.remove('dice without the trunk network')
    judged[[*columns, 'own expectation', 'second soft Dice']].round(4).to_csv(
        root / 'reports' / 'reference' / f'{name.replace("_", "-")}.csv', index=False
    )
    bad = (judged['dice'] < 0.8).to_numpy().astype(int)
    for evidence in ('expected', 'own expectation', 'second soft Dice'):
        print(f'AUC for a Dice below .8 by {evidence}: {roc_auc(bad, -judged[evidence].to_numpy()):.3f}')
    within = (judged['dice'].between(judged['low'], judged['high'])).mean()
    print(f'{len(judged)} masks, {bad.sum()} below .8; within the interval: {within:.2f}')
    print(judged.groupby('organ')[['dice', 'expected']].mean().round(3))


if __name__ == '__main__':
    main()
