"""Can the phantoms be learned from, and not by a trick? Held-out AUC on the demo cohort of.

  (a) global statistics of the whole scan and of its tags, in two classifiers,
  (b) the Hounsfield-ratio baseline: the share of an organ more than 15 HU below its own median, nothing trained,
  (c) approach 6, a small network per organ,
  (d) approach 5 from the start that its folds were given, where they have been run,

all on the same patients and folds. Trains approach 6 where its folds are not finished yet (about an hour on two cores).

    python benchmarks/baselines.py [folder for baselines.csv]
    python benchmarks/baselines.py --elsewhere [folder]      # (a) alone, on the cohort of another hospital
    python benchmarks/baselines.py --others [folder]         # (a) alone, on the 400 phantoms of chapter 23
    python benchmarks/baselines.py --elsewhere400 [folder]   # (a) alone, on 400 further patients of that hospital

With few injured the best of ten areas is well above a half by chance alone. So (a) alone says how often, with the
patients' answers dealt out anew, the best of the ten is at least as good as the best of the ten here.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ctlab.core.anatomy import TARGETS
from ctlab.core.settings import Settings
from ctlab.judge.metrics import RSNA_WEIGHTS, bootstrap, rsna_score
from ctlab.learn.inference import scores_by_target


def global_statistics(row, stack, info, meta):
    """Compute statistics of a scan without looking at any organ."""
    a = stack[::2, ::4, ::4].astype(float)
    size = sum(p.stat().st_size for p in Path(row['folder']).iterdir())
    return [
        a.mean(),
        a.std(),
        a.min(),
        a.max(),
        *np.quantile(a, (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)),
        len(stack),
        info['slices'],
        info['spacing'],
        info['thickness'] or 0,
        *info['pixel'],
        size / info['slices'],
        size,
        info['positions'][0],
        info['positions'][-1],
        meta.get('aortic_hu', 0),
        meta.get('incomplete_organ', 0),
    ]


def statistics(settings, data):
    """(global statistics by patient, the scans' rows)."""
    from ctlab.cohort.layout import list_series

    meta = pd.read_csv(settings.data / 'train_series_meta.csv').set_index('series_id')
    rows = data.table.merge(list_series(settings.data), on=['patient_id', 'series_id']).to_dict('records')
    numbers = [
        global_statistics(
            r, data.stacks.load(r['series_id']), data.stacks.info(r['series_id']), meta.loc[r['series_id']]
        )
        for r in rows
    ]
    return pd.DataFrame(numbers).assign(patient_id=[r['patient_id'] for r in rows]).groupby('patient_id').mean(), rows


def guesses(y, fold, numbers):
    """(name, answers) of two classifiers, each patient held out once."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = {
        'logistic regression': make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        'random forest': RandomForestClassifier(200, min_samples_leaf=5, random_state=0),
    }
    for name, model in models.items():
        p = pd.Series(0.0, index=y.index)
        for k in sorted(fold.unique()):
            train, held = fold.index[fold != k], fold.index[fold == k]
            p[held] = model.fit(numbers.loc[train], y[train]).predict_proba(numbers.loc[held])[:, 1]
        yield name, p


def judged(target, y, fold, numbers):
    """Evaluate two classifiers on global statistics."""
    for name, p in guesses(y, fold, numbers):
        yield target, f'global statistics, {name}', *bootstrap('auc_roc', y.to_numpy(), p.to_numpy()), len(y)


def dealt(numbers, patients, n=60):
    """Find the best of ten areas under permuted labels, once per permutation."""
    from sklearn.metrics import roc_auc_score

    answers = (patients[list(TARGETS)] > 0).astype(int)
    for deal in range(n):
        order, best = np.random.default_rng(deal).permutation(len(patients)), 0.0
        for target in TARGETS:
            y = pd.Series(answers[target].to_numpy()[order], patients.index)
            best = max(best, *(roc_auc_score(y, p) for _, p in guesses(y, patients['fold'], numbers)))
        yield best


def alone(settings, to):
    """Trivial statistics of a cohort, and what is chance in them."""
    from ctlab.cohort.stacks import StackPreprocessing
    from ctlab.trauma.study import load_samples

    data = load_samples(settings, StackPreprocessing(5.0, 192))
    numbers, _ = statistics(settings, data)
    patients = data.table.drop_duplicates('patient_id').set_index('patient_id')
    table = [row for t in TARGETS for row in judged(t, (patients[t] > 0).astype(int), patients['fold'], numbers)]
    table = pd.DataFrame(table, columns=['target', 'method', 'AUC', 'low', 'high', 'patients'])
    best = np.array(list(dealt(numbers, patients)))
    table['best of ten by chance'] = np.median(best)
    table['deals at least as good'] = [float((best >= a).mean()) for a in table['AUC']]
    print(table.round(3).to_string(index=False))
    if to:
        table.round(3).to_csv(to, index=False)


def cohort(name):
    """Return the settings of a cohort that a chapter draws."""
    from ctlab.phantoms.cohorts import PRESETS, make_cohort
    from ctlab.trauma.ensemble import external_cohort
    from ctlab.trauma.learning_curve import evaluation_cohort

    home = Settings(preset='demo')
    if name == 'others':
        return evaluation_cohort(home)
    if name == 'elsewhere':
        return replace(home, data_root=str(external_cohort(home)))
    many = replace(PRESETS['elsewhere'], patients=400)
    return replace(home, data_root=str(make_cohort(home.work / 'cohorts' / 'elsewhere400-demo', many, home.seed + 4)))


def trained_predictions(settings, loaded):
    """Predict held-out patients by approach 6 (trained where it is not yet) and, if there are runs, approach 5."""
    from ctlab.judge.comparison import load_held_out
    from ctlab.trauma import approach6

    runs, other = settings.out / 'approach6' / 'demo', settings.out / 'approach5' / 'demo'
    for fold in range(settings.n_folds):
        if not (runs / f'fold{fold}' / 'config.json').exists():
            approach6.run(Settings(preset='demo', fold=fold), loaded)
    pretrained = load_held_out(other) if len(list(other.glob('fold*/config.json'))) == settings.n_folds else None
    return load_held_out(runs), pretrained


def hypodense_shares(rows, cubes):
    """Share of dark voxels in each solid organ, the worst scan of a patient."""
    from ctlab.trauma import approach6

    found = []
    for r in rows:
        parts = cubes.load(r['patient_id'], r['series_id']).items()
        shares = {n: approach6.hypodense_fraction(c) for n, c in parts if n != 'trunk'}
        found.append({'patient_id': r['patient_id'], **shares})
    shares = pd.DataFrame(found)
    shares['kidney'] = shares[['kidney_left', 'kidney_right']].max(axis=1)
    return shares.groupby('patient_id').max()


def rows_of(target, patients, features, shares, learned, pretrained):
    """Judge each method on a target: the area under its ROC curve with an interval."""
    y, fold = (patients[target] > 0).astype(int), patients['fold']
    rows = judged(target, y, fold, features)

    def judge(method, scores):
        auc = bootstrap('auc_roc', y[scores.index].to_numpy(), scores.to_numpy())
        return (target, method, *auc, len(scores))

    if target in shares:
        rows.append(judge('Hounsfield-ratio baseline, untrained', shares[target].dropna()))
    scores = scores_by_target(learned)[target]
    injured = scores if scores.ndim == 1 else 1 - scores[:, 0]
    rows.append(judge('approach 6', pd.Series(injured, learned.index)))
    if pretrained is not None:
        rows.append(judge('approach 5 (pretrained)', 1 - pretrained[f'{target}_healthy']))
    return rows


def constant_answer(labels):
    """Compute the best constant prediction under the competition's weights."""
    answer = {}
    for target, grades in TARGETS.items():
        counts = np.array([labels[f'{target}_{g}'].sum() for g in grades]) * np.array(RSNA_WEIGHTS[target])
        answer |= {f'{target}_{g}': c / counts.sum() for g, c in zip(grades, counts)}
    return pd.DataFrame([answer] * len(labels), index=labels.index)


def main():
    to = next((Path(a) for a in sys.argv[1:] if not a.startswith('--')), None)
    for name in ('elsewhere', 'others', 'elsewhere400'):
        if f'--{name}' in sys.argv:
            return alone(cohort(name), to and to / f'baselines-{name}.csv')
    from ctlab.trauma import approach6

    settings = Settings(preset='demo')
    data, cubes = approach6.load_data(settings)
    learned, pretrained = trained_predictions(settings, (data, cubes))
    features, rows = statistics(settings, data)
    shares = hypodense_shares(rows, cubes)
    patients = data.table.drop_duplicates('patient_id').set_index('patient_id')
    table = [row for t in TARGETS for row in rows_of(t, patients, features, shares, learned, pretrained)]
    table = pd.DataFrame(table, columns=['target', 'method', 'AUC', 'low', 'high', 'patients']).round(3)
    print('injured or not, held-out phantoms of preset demo, 95 % intervals over patients\n')
    print(table.to_string(index=False))
    labels = data.labels.loc[learned.index]
    constant, ours = (rsna_score(labels, p) for p in (constant_answer(labels), learned))
    print('\ncompetition metric (lower is better):')
    print(f'{constant:.3f} for the best single answer to everybody, {ours:.3f} for approach 6')
    if to:
        table.to_csv(to / 'baselines.csv', index=False)


if __name__ == '__main__':
    main()
