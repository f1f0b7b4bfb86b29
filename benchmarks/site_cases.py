"""Measure what 1, 3 and 10 scans of a hospital with another protocol teach the organ model, and what it forgets.

The hospital outlines on cone-beam scans: grey values too low and lower still in the middle, rings, streaks and much
noise, none of which the networks have seen. Its scans are drawn, their masks are true. `run_site_cases`, which is
`ctlab run 17_patients -p start shipped -p cases FOLDER`, goes on from the shipped weights with 1, 3 and 10 of them;
twelve other patients judge, by the whole of `segment_organs`, and so do samples of twelve drawn bodies of the usual
kind, none of which it learned from, which show what is forgotten.

    python benchmarks/site_cases.py [folder for site-cases.csv] [seeds] [preset] [hospital]

A run that was stopped goes on; a finished one is not repeated. How strong the artefacts are was chosen on six waiting
patients of hospital 0 and on hospital 1, by what the shipped networks make of them; those who judge were not looked at.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scans import drawn_case

from ctlab.core.settings import Settings
from ctlab.organs.organ_model import PRESET_CONFIGS, SyntheticDataset, dice_per_class, load_shipped_network
from ctlab.organs.site_cases import SiteCase, run_site_cases
from ctlab.phantoms.synthesis import ORGANS, Synthesis, gaussian_blur, make_body_pool

COUNTS, WAITING, JUDGES, STRENGTH = (1, 3, 10), 30, 12, 0.6
SHAPE, SPACING = (96, 96, 144), 3.0  # of a scan, mm
WORK = Path(Settings().work) / 'site_cases_benchmark'


def cone_beam(hu, rng):
    """Add what a cone-beam scan has: a wrong scale, cupping, rings, streaks and noise."""
    depth, height, width = hu.shape
    down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing='ij')
    cupping = -90 * (1 - down**2 - across**2).clamp(min=0)
    around = torch.hypot(torch.arange(height)[:, None] - height / 2, torch.arange(width)[None] - width / 2)
    rings = torch.from_numpy(rng.normal(0, 18, int(around.max()) + 2).astype(np.float32))[around.round().long()]
    turn = (torch.atan2(down, across) / np.pi + 1) / 2
    rays = torch.from_numpy(rng.normal(0, 25, (depth, int(rng.integers(20, 50)))).astype(np.float32))
    streaks = rays[:, (turn * (rays.shape[1] - 1)).round().long()]
    noise = torch.from_numpy(rng.normal(0, 60, hu.shape).astype(np.float32))
    for axis in (1, 2):
        noise = gaussian_blur(noise, 0.5, axis)
    wrong = -0.12 * (hu + 1000) + cupping + rings + streaks + noise
    return (hu + STRENGTH * wrong).clamp(-1024, 3071)


def draw_case(hospital, patient):
    """Draw a patient of a hospital."""
    folder, name = WORK / f'hospital{hospital}' / f'{patient:02d}', f'{patient:02d}'
    files = drawn_case(folder, 60_000 + 1000 * hospital + patient, SHAPE, SPACING, cone_beam)
    return SiteCase(name, name, *files)


@functools.cache
def usual_samples():
    """Make the samples of the usual kind."""
    bodies = make_body_pool(12, Settings().work, SPACING, 7000, 1)
    return SyntheticDataset(Synthesis(bodies, PRESET_CONFIGS['full'].shape, SPACING), 24, True)


def usual_scores(net, split):
    """Mean Dice of every organ in the samples of the usual kind."""
    found = pd.DataFrame(dice_per_class(net, usual_samples()))
    found = found[found['structure'].isin(ORGANS)].groupby('structure', sort=False)['dice'].agg(['mean', 'count'])
    found.columns = ['value', 'n']
    return found.rename_axis('target').reset_index().assign(split=split)


def learn(cases, judges, seed, preset, hospital):
    """Go on learning from some cases; returns the mean Dice of every structure before and after, here and elsewhere."""
    out = WORK / f'hospital{hospital}-strength{STRENGTH}' / f'{len(cases)}-of-seed-{seed}'
    settings = Settings(out_dir=out, preset=preset, seed=seed, device='cpu', workers=1)
    result = run_site_cases(settings, cases, judges=judges)
    print(f'{len(cases)} cases, seed {seed}, {result["seconds"]:.0f} s: {result["verdict"]}', flush=True)
    table = result['metrics'][result['metrics']['split'].str.startswith('cases')]
    usual = [
        usual_scores(load_shipped_network(), 'bodies, before'),
        usual_scores(result['learner'].net, 'bodies, after'),
    ]
    table = pd.concat([table, *usual])[['split', 'target', 'value', 'n']]
    return table.assign(cases=len(cases), seed=seed, preset=preset, seconds=round(result['seconds']))


def main(out='reports/reference', seeds='3', preset='demo', hospital='0'):
    """Run what is missing, and write the table."""
    torch.set_num_threads(1)
    cases, tables = [draw_case(int(hospital), k) for k in range(WAITING + JUDGES)], []
    for seed in range(int(seeds)):
        chosen = np.random.default_rng(seed).permutation(WAITING)
        for n in COUNTS:
            picked = [cases[k] for k in chosen[:n]]
            tables.append(learn(picked, cases[WAITING:], seed, preset, int(hospital)))
            pd.concat(tables).round(4).to_csv(Path(out) / 'site-cases.csv', index=False)
    mean = pd.concat(tables).groupby(['cases', 'split'], sort=False)['value'].mean().unstack()
    print(mean.round(3).to_string())


if __name__ == '__main__':
    main(*sys.argv[1:])
