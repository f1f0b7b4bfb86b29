"""Measure what a site's corrections teach, and whether the scan in doubt teaches more than any scan.

A hospital is drawn that the shipped networks were not made for: two patients of five are children, 60 % as large as the
bodies that the networks know. Thirty patients wait to be corrected, twelve others judge. One, three, five and ten of
the waiting are corrected (their masks are the drawn ones), and the trunk network goes on from the shipped weights as
`ctlab learn` does: half of the samples are drawn bodies (voxels of 6 mm; at 3 mm everything takes six times as long).
The scans are chosen by doubt (the shipped model's expected Dice), or by chance. For two seeds a third chain corrects
nothing and learns for as long, on drawn bodies alone.

    python benchmarks/corrections.py [folder for corrections.csv] [seeds] [hospital]

A chain that was stopped goes on; a finished step is not repeated. Hospital 1 chose the settings; hospital 0 judges.
"""

import copy
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from scans import drawn_case

from ctlab.core.settings import Settings
from ctlab.judge.metrics import dice
from ctlab.learn.runs import code_version
from ctlab.learn.training import Learner, fit
from ctlab.organs.organ_model import load_trunk_network, segment_organs
from ctlab.organs.site_cases import KnownClassesLoss, SiteCase, SiteDataset, prepare_site_case
from ctlab.phantoms.synthesis import CLASSES, ORGANS, Synthesis, make_body_pool, normalise_hu

COUNTS, WAITING, JUDGES, SPACING = (1, 3, 5, 10), 30, 12, 6.0
STEPS, LEARNING_RATE, AVERAGE = 40, 5e-4, 0.9  # of a step of a chain
CONTROLS = 2  # seeds of the chain that corrects nothing
SHAPE, CHILD = (112, 96, 144), 0.6  # voxels of 3 mm of an adult; size of a child
SETTINGS = Settings(workers=1)
WORK = Path(SETTINGS.work) / 'corrections'


def draw_case(hospital, patient):
    """Draw a patient of a hospital."""
    folder, name = WORK / f'hospital{hospital}' / f'{patient:02d}', f'{patient:02d}'
    spacing = 3.0 * (CHILD if is_child(patient) else 1)
    files = drawn_case(folder, 70_000 + 1000 * hospital + patient, SHAPE, spacing)
    return SiteCase(name, name, *files)


def is_child(patient):
    """Whether a patient is a child: two of five."""
    return patient % 5 in (1, 3)


def doubts(hospital, cases):
    """Outline the waiting scans with the shipped model; one less the mean expected Dice."""
    path = WORK / f'hospital{hospital}' / f'doubt-{code_version("organs.organ_model", "organs.expected_dice")}.csv'
    known = pd.read_csv(path, dtype={'case': str}).to_dict('records') if path.is_file() else []
    for case in cases[len(known) :]:
        expected = segment_organs(case.read()[0]).meta['expected']
        known.append({'case': case.name, 'doubt': 1 - float(np.mean([e.dice for e in expected.values()] or [2]))})
        pd.DataFrame(known).to_csv(path, index=False)
    return np.array([k['doubt'] for k in known])


def judge(net, cases):
    """Dice of the six organs in scans that nobody learned from."""
    rows, net = [], net.eval()
    for case in cases:
        hu, mask = prepare_site_case(case, WORK, SPACING).arrays()
        with torch.inference_mode():
            image = normalise_hu(torch.from_numpy(np.asarray(hu, np.float32)))[None, None]
            found = net(_padded(image)).argmax(1)[0].numpy()[tuple(slice(n) for n in hu.shape)]
        for organ in ORGANS:
            k = list(CLASSES).index(organ) + 1
            if (np.asarray(mask) == k).sum() > 20:
                row = {'case': case.name, 'child': is_child(int(case.name)), 'structure': organ}
                rows.append(row | {'dice': dice(found == k, np.asarray(mask) == k)})
    return pd.DataFrame(rows)


def _padded(image):
    """Pad an image with air to a size that the network can halve four times."""
    room = [-n % 16 for n in image.shape[:1:-1]]
    air = float(normalise_hu(torch.tensor(-1000.0)))
    return torch.nn.functional.pad(image, [v for r in room for v in (0, r)], value=air)


def order(how, seed, doubt):
    """Order the waiting scans: those that this seed's hospital has, by doubt or by chance."""
    here = np.random.default_rng(seed).permutation(WAITING)[: WAITING * 2 // 3]
    return here[np.argsort(-doubt[here])] if how == 'doubt' else here


def learn(net, cases, seed, folder):
    """Go on learning from some corrected scans; from none, from drawn bodies only."""
    L.seed_everything(seed, verbose=False)
    maker = Synthesis(make_body_pool(120, SETTINGS.work, SPACING, 1000, 1)[20:], (64, 48, 80), SPACING)
    ready = [prepare_site_case(c, WORK, SPACING) for c in cases]
    data = [SiteDataset(ready, maker, STEPS), SiteDataset([], maker, 1, True)]
    learner = Learner(net, KnownClassesLoss(), LEARNING_RATE, lambda epoch: 1.0)
    fit(learner, *(torch.utils.data.DataLoader(d, 1) for d in data), folder, 1, 'cpu', monitor='', average=AVERAGE)
    return learner.net.cpu()


def chain(how, seed, hospital, cases, doubt):
    """Correct 1, 3, 5 and 10 scans one after the other, and judge after each."""
    version = code_version('organs.site_cases', 'phantoms.synthesis')
    net, chosen = copy.deepcopy(load_trunk_network()), order(how, seed, doubt)
    for n in COUNTS:
        folder = WORK / f'hospital{hospital}' / f'{version}-{STEPS}-{LEARNING_RATE}-{how}-{seed}-{n}'
        if (folder / 'net.pt').is_file():
            net.load_state_dict(torch.load(folder / 'net.pt', weights_only=True))
        else:
            picked = [cases[k] for k in chosen[:n]] if how != 'nothing' else []
            net = learn(net, picked, 100 * seed + n, folder)
            judge(net, cases[WAITING:]).to_csv(folder / 'scores.csv', index=False)
            torch.save(net.state_dict(), folder / 'net.pt')
        share = float(np.mean([is_child(k) for k in chosen[:n]])) if how != 'nothing' else np.nan
        table = pd.read_csv(folder / 'scores.csv', dtype={'case': str})
        yield table.assign(chosen_by=how, seed=seed, corrected=n, children=share)


def main(out='reports/reference', seeds='5', hospital='0'):
    """Run every chain that is missing, and write the table."""
    torch.set_num_threads(1)
    cases = [draw_case(int(hospital), k) for k in range(WAITING + JUDGES)]
    doubt = doubts(hospital, cases[:WAITING])
    child = np.array([is_child(k) for k in range(WAITING)])
    print(f'doubt: adults {doubt[~child].mean():.3f}, children {doubt[child].mean():.3f}', flush=True)
    before = judge(load_trunk_network(), cases[WAITING:]).assign(chosen_by='shipped', seed=0, corrected=0)
    print(before.groupby('child')['dice'].mean().round(3).to_dict(), flush=True)
    tables = [before]
    for seed in range(int(seeds)):
        for how in ('doubt', 'chance') if seed >= CONTROLS else ('doubt', 'chance', 'nothing'):
            for table in chain(how, seed, hospital, cases, doubt):
                tables.append(table)
                mean = table.groupby('child')['dice'].mean().round(3).to_dict()
                print(seed, how, int(table['corrected'].iloc[0]), f'{table["dice"].mean():.3f}', mean, flush=True)
        keys = ['chosen_by', 'seed', 'corrected', 'child']
        pd.concat(tables).groupby(keys)['dice'].agg(['mean', 'count']).round(4).to_csv(Path(out) / 'corrections.csv')


if __name__ == '__main__':
    main(*sys.argv[1:])
