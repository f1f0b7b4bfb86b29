"""Measure what each line of the randomisation is worth.

Networks like the organ model learn from nothing, 3,000 steps on bodies of 6 mm, each with one line switched off. All
are judged on the same samples of held-out bodies with every line on, and on the public patient. Eight to fourteen
minutes of one core a row. A row is made again only when the code that draws bodies and samples has changed.

    python benchmarks/ablation.py [folder for organ-model-ablation.csv] [cases of patients, for a row with their shapes]
"""

import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ctlab.core.settings import Settings, real_data_folder
from ctlab.learn.runs import code_version
from ctlab.organs.organ_model import (
    PresetConfig,
    SyntheticDataset,
    dice_per_class,
    run,
    score_public_patient,
    segment_organs,
)
from ctlab.phantoms.synthesis import ORGANS, Randomization, Synthesis, make_body_pool

LINES = [f.name for f in fields(Randomization)]
SIZE = PresetConfig(100, 6.0, (32, 40, 48), (16, 32, 64, 128), 250, 12)
SETTINGS, JUDGES = Settings(preset='demo'), 60


def rows(maps):
    """Name -> (randomness, label maps, seed)."""
    found = {'all lines': (Randomization(), '', 0), 'all lines, another seed': (Randomization(), '', 1)}
    found |= {f'no {line}': (replace(Randomization(), **{line: 0.0}), '', 0) for line in LINES}
    found |= {'no line': (Randomization(**dict.fromkeys(LINES, 0.0)), '', 0)}
    if maps:
        found |= {'all lines, and shapes of a patient': (Randomization(), maps, 0)}
    return found


def on_drawn(net):
    """Dice of every organ in held-out samples that hold it."""
    held = make_body_pool(SIZE.bodies, SETTINGS.work, SIZE.spacing, 1000, SETTINGS.workers)[: SIZE.bodies // 10]
    found = pd.DataFrame(dice_per_class(net, SyntheticDataset(Synthesis(held, SIZE.shape, SIZE.spacing), JUDGES, True)))
    return found[found['structure'].isin(ORGANS)].astype({'case': str})


def on_patient(net):
    """Dice of every organ on the half of the public scan that was looked at, and on the other."""
    import ctlab

    found = segment_organs(ctlab.read(real_data_folder() / 'example_ct.nii.gz'), net, spacing=SIZE.spacing)
    halves = score_public_patient(found, real_data_folder() / 'example_seg_full')[0][['seen half', 'other half']]
    return halves.rename_axis('structure').reset_index().melt('structure', var_name='case', value_name='dice')


def told(scores, samples_per_epoch=2000):
    """Tabulate every row: mean Dice over organs.

    And its difference from all lines with a 95 % interval over samples.
    """
    rng, table = np.random.default_rng(0), []
    by_row = {
        name: own.pivot(index='case', columns='structure', values='dice')
        for name, own in scores.groupby('row', sort=False)
    }
    drawn = {name: own[own.index.str.isdigit()] for name, own in by_row.items()}
    for name, own in drawn.items():
        gain = (own - drawn['all lines']).to_numpy()
        means = [
            np.nanmean(np.nanmean(gain[rng.integers(len(gain), size=len(gain))], 0)) for _ in range(samples_per_epoch)
        ]
        low, high = np.quantile(means, [0.025, 0.975])
        table.append(
            {
                'row': name,
                'drawn': own.mean().mean(),
                'difference': np.nanmean(np.nanmean(gain, 0)),
                'low': low,
                'high': high,
                **by_row[name].mean(axis=1).reindex(['seen half', 'other half']),
            }
        )
    return pd.DataFrame(table).round(4)


def made(how, maps, seed, name):
    """Dice of a row's network: structure, case (a sample, or a half of the patient), dice."""
    folder = f'ablation_{name.replace(",", "").replace(" ", "_")}'
    net = run(replace(SETTINGS, seed=seed), how, folder, label_maps=maps, size=SIZE)['learner'].net
    judged = [on_drawn(net)] + [on_patient(net)] * bool(
        real_data_folder() and not maps
    )  # shapes that were seen judge nothing
    return pd.concat(judged).assign(row=name)


def main():
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / 'reports' / 'reference'
    kept = to / 'organ-model-ablation.parquet'
    code = code_version('phantoms.body', 'phantoms.synthesis')
    scores = pd.read_parquet(kept) if kept.exists() else pd.DataFrame(columns=['row', 'case', 'structure', 'dice'])
    scores = scores[scores['code'] == code] if 'code' in scores else scores.iloc[:0]
    for name, (how, maps, seed) in rows(sys.argv[2] if len(sys.argv) > 2 else '').items():
        if name in set(scores['row']):
            continue
        scores = pd.concat([scores, made(how, maps, seed, name).assign(code=code)], ignore_index=True)
        scores.to_parquet(kept)
        table = told(scores)
        table.to_csv(to / 'organ-model-ablation.csv', index=False)
        print(table.tail(1).to_string(), flush=True)


if __name__ == '__main__':
    main()
