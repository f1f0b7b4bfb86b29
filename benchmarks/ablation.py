"""What is each line of randomness worth? Small networks learn from nothing, 2,000 steps on bodies of 6 mm, each with one line
switched off; all are judged on the same samples of held-out bodies, in which every line is on, and on the public patient,
whose scan no line was drawn from. About seven minutes of one core a row; a row that was made is not made again.

    python benchmarks/ablation.py [folder for organ-model-ablation.csv] [cases of patients, for a row with their shapes]
"""
import sys
from dataclasses import fields, replace
from pathlib import Path
import numpy as np
import pandas as pd
from ctlab.core.settings import Settings, real_data
from ctlab.judge.metrics import dice
from ctlab.organs.organ_model import Drawn, Size, find_organs, overlaps, run
from ctlab.phantoms.synthesis import CLASSES, ORGANS, Randomness, Synthesis, body_pool

LINES = [f.name for f in fields(Randomness)]
SIZE = Size(100, 6., (32, 40, 48), (16, 32, 64, 128), 250, 8)
SETTINGS, JUDGES = Settings(preset='demo'), 60


def rows(maps):
    "name -> (randomness, label maps, seed)"
    found = {'all lines': (Randomness(), '', 0), 'all lines, another seed': (Randomness(), '', 1)}
    found |= {f'no {line}': (replace(Randomness(), **{line: 0.}), '', 0) for line in LINES}
    found |= {'no line': (Randomness(**dict.fromkeys(LINES, 0.)), '', 0)}
    if maps: found |= {'all lines, and shapes of a patient': (Randomness(), maps, 0)}
    return found


def on_drawn(net):
    "Dice of every organ in held-out samples that hold it."
    held = body_pool(SIZE.bodies, SETTINGS.work, SIZE.spacing, 1000, SETTINGS.workers)[:SIZE.bodies//10]
    scores = pd.DataFrame(overlaps(net, Drawn(Synthesis(held, SIZE.shape, SIZE.spacing), JUDGES, True)))
    return scores[scores['structure'].isin(ORGANS)].pivot(index='case', columns='structure', values='dice')


def on_patient(net):
    "Mean Dice of the organs on the half of the public scan that was looked at, and on the other."
    import ctlab
    found = find_organs(ctlab.read(real_data()/'example_ct.nii.gz'), net, spacing=SIZE.spacing).array
    seen, scores = (np.arange(len(found))//8) % 2 == 0, []
    for k, organ in enumerate(ORGANS, 1):
        masks = (real_data()/'example_seg_full'/f'{s}.nii.gz' for s in CLASSES[organ])
        truth = sum(ctlab.read(m).array > 0 for m in masks) > 0
        scores.append([dice(found[half] == k, truth[half]) for half in (seen, ~seen)])
    return np.mean(scores, 0)


def paired(row, usual, draws=2000):
    "Mean over organs of what a row has more than the usual one, with its 95 % interval over samples."
    gain, rng = (row - usual).to_numpy(), np.random.default_rng(0)
    means = [np.nanmean(np.nanmean(gain[rng.integers(len(gain), size=len(gain))], 0)) for _ in range(draws)]
    return np.nanmean(np.nanmean(gain, 0)), *np.quantile(means, [.025, .975])


def main():
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]/'reports'/'reference'
    drawn, table = {}, []
    for name, (how, maps, seed) in rows(sys.argv[2] if len(sys.argv) > 2 else '').items():
        folder = f"ablation_{name.replace(',', '').replace(' ', '_')}"
        net = run(replace(SETTINGS, seed=seed), how, folder, label_maps=maps, size=SIZE)['learner'].net
        drawn[name] = on_drawn(net)
        patient = on_patient(net) if real_data() and not maps else (np.nan, np.nan)  # shapes that were seen judge nothing
        table.append({'row': name, 'drawn': drawn[name].mean().mean(), 'seen half': patient[0], 'other half': patient[1]})
        print(table[-1], flush=True)
    for row in table: row |= zip(('difference', 'low', 'high'), paired(drawn[row['row']], drawn['all lines']))
    pd.DataFrame(table).round(4).to_csv(to/'organ-model-ablation.csv', index=False)


if __name__ == '__main__': main()
