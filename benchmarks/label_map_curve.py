"""Measure what more label maps of patients would bring: a learning curve.

The trunk network goes on from the first network's weights, which have seen no patient, for 500 steps on 200 bodies: all
drawn, or half of them around the organs of 5, 10 or 20 patients. All are judged on the same samples of bodies around
ten other patients' label maps, and of drawn bodies held out. A quarter of an hour of one core a training; a training
that was stopped goes on, a finished one is not repeated.

    python benchmarks/label_map_curve.py FOLDER [folder for label-map-curve.csv] [seeds]
"""

import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch

from ctlab.core.settings import Settings
from ctlab.learn.runs import code_version
from ctlab.learn.training import Learner, fit
from ctlab.learn.weights import load_weights
from ctlab.organs.organ_model import (
    TRUNK_CONFIGS,
    TRUNK_SLABS,
    DiceCrossEntropyLoss,
    SyntheticDataset,
    dice_per_class,
    make_organ_net,
    shipped_weights_file,
)
from ctlab.phantoms.patient_bodies import make_other_bodies, make_patient_bodies
from ctlab.phantoms.synthesis import ORGANS, Randomization, Synthesis, make_body_pool

COUNTS, JUDGES, BODIES, STEPS, EPOCHS = (0, 5, 10, 20), 10, 200, 100, 5
SIZE, HOW, SETTINGS = TRUNK_CONFIGS['full'], replace(Randomization(), slab=TRUNK_SLABS), Settings(workers=1)
COMMON = SETTINGS.work, SIZE.spacing


def split(folder, seed):
    """Order the label maps by the seed; the last ten judge."""
    paths = sorted(Path(folder).glob('*.nii.gz'))
    if len(paths) < COUNTS[-1] + JUDGES:
        raise SystemExit(f'{folder}: {COUNTS[-1] + JUDGES} label maps are needed, {len(paths)} found')
    order = np.random.default_rng(1234).permutation(len(paths))  # the judges are the same for every seed
    learned = np.random.default_rng(seed).permutation(order[:-JUDGES])
    return [paths[k] for k in learned], [paths[k] for k in order[-JUDGES:]]


def bodies_for(maps):
    """Make the bodies of one training: half of them around patients' organs, where there are any."""
    around = make_patient_bodies(sorted(maps), BODIES // 2, *COMMON, True, 50_000, 1) if maps else []
    drawn = make_body_pool(BODIES + 20, *COMMON, 1000, 1)[20:]
    return drawn[: BODIES - len(around)] + around + make_other_bodies(25, *COMMON, 90_000, 1)


def train(maps, seed, folder):
    """Train one network of the curve."""
    L.seed_everything(seed, verbose=False)

    def fade(epoch):
        return (1 - epoch / EPOCHS) ** 0.9

    net = load_weights(make_organ_net(SIZE.widths), shipped_weights_file())
    learner = Learner(net, DiceCrossEntropyLoss(), SIZE.learning_rate / 2, fade, 1e-5)
    maker = Synthesis(bodies_for(maps), SIZE.shape, SIZE.spacing, HOW)
    loaders = [
        torch.utils.data.DataLoader(SyntheticDataset(maker, n, fixed), 1) for n, fixed in ((STEPS, False), (2, True))
    ]
    fit(learner, *loaders, folder, EPOCHS, 'cpu', monitor='', precision='half', average=0.99)
    return learner.net


def judge(net, judges):
    """Dice of the six organs on held-out samples."""
    sets = {
        'other patients': make_patient_bodies(judges, 3 * JUDGES, *COMMON, False, 80_000, 1),
        'drawn': make_body_pool(20, *COMMON, 1000, 1),
    }
    parts = []
    for name, bodies in sets.items():
        maker = Synthesis(bodies, SIZE.shape, SIZE.spacing, HOW)
        parts.append(pd.DataFrame(dice_per_class(net, SyntheticDataset(maker, 60, True))).assign(judged_on=name))
    found = pd.concat(parts)
    return found[found['structure'].isin(ORGANS)]


def main(folder, out='reports/reference', seeds='1'):
    """Train and judge every row that is missing, and write the table."""
    version = code_version('phantoms.body', 'phantoms.synthesis', 'phantoms.patient_bodies')
    kept, tables = Path(SETTINGS.work) / 'label_map_curve', []
    for seed in range(int(seeds)):
        learned, judges = split(folder, seed)
        for n in COUNTS:
            row = kept / f'{version}-{seed}-{n}'
            if not (row / 'scores.csv').is_file():
                judge(train(learned[:n], seed, row), judges).to_csv(row / 'scores.csv', index=False)
            tables.append(pd.read_csv(row / 'scores.csv').assign(maps=n, seed=seed))
            mean = tables[-1].groupby('judged_on')['dice'].mean().round(3).to_dict()
            print(f'seed {seed}, {n} label maps: {mean}', flush=True)
            table = pd.concat(tables).groupby(['judged_on', 'maps', 'seed', 'structure'])['dice'].agg(['mean', 'count'])
            table.round(4).to_csv(Path(out) / 'label-map-curve.csv')


if __name__ == '__main__':
    main(*sys.argv[1:])
