"""Comparisons of studies beside numpy and scikit-learn: pairs, weights, intervals, and what is told of nothing."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from test_labels import labels

from ctlab.core.anatomy import LABEL_COLUMNS, TARGETS
from ctlab.judge.comparison import (
    COMPARISON_COLUMNS,
    compare_segmentations,
    compare_studies,
    compare_with_others,
    comparison_table_html,
    leakage_experiment,
    load_held_out,
    resampled_auc,
    resampled_rsna_scores,
)
from ctlab.judge.metrics import RSNA_WEIGHTS, bootstrap_weights


def answers(frame, skill, seed, name='valid'):
    """Probabilities of a reader of some skill, one row a patient."""
    rng, made = np.random.default_rng(seed), {}
    for target, grades in TARGETS.items():
        columns = [f'{target}_{g}' for g in grades]
        logits = rng.normal(size=(len(frame), len(grades))) + skill * frame[columns].to_numpy()
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        made |= dict(zip(columns, p.T))
    return pd.DataFrame(made, index=frame.index)


def stored(folder, frame, fold, split='valid', series=0):
    (folder / f'fold{fold}').mkdir(parents=True, exist_ok=True)
    table = frame.reset_index().assign(split=split)
    table.insert(1, 'series_id', table['patient_id'] * 10 + series)
    return table.to_parquet(folder / f'fold{fold}' / 'predictions.parquet')


def test_held_out_answers_are_gathered(tmp_path):
    frame = labels(n=12)
    p = answers(frame, 1.0, 0)
    stored(tmp_path, p.iloc[:6], 0)
    stored(tmp_path, p.iloc[6:], 1)
    got = load_held_out(tmp_path)
    assert set(got.index) == set(frame.index) and np.allclose(got.loc[p.index, LABEL_COLUMNS], p[LABEL_COLUMNS])
    assert (
        set(load_held_out(tmp_path, (1,)).index) == set(frame.index[6:]) and len(load_held_out(tmp_path, (0, 1))) == 12
    )
    stored(tmp_path, p.iloc[:6], 2, 'train')
    assert len(load_held_out(tmp_path)) == 12, 'what was trained on is not held out'
    for folds in ((7,), ()):
        with pytest.raises(FileNotFoundError) as error:
            load_held_out(tmp_path if folds else tmp_path / 'x', folds)
        assert str(error.value) == f'{tmp_path if folds else tmp_path / "x"}: no finished fold; run the study first'


def test_areas_and_the_competition_s_metric_beside_scikit_learn():
    frame = labels(n=90, seed=1)
    p = answers(frame, 1.0, 1)
    weights = np.vstack([np.ones(90), np.random.default_rng(0).integers(0, 4, (3, 90))])
    got, scores = resampled_auc(frame, p, weights), resampled_rsna_scores(frame, p * 3, weights)
    assert list(got) == [f'AUC {t}' for t in TARGETS] and scores.shape == (4,)
    for w, *at in zip(weights, *got.values(), scores):
        for target, area in zip(TARGETS, at):
            assert area == pytest.approx(
                roc_auc_score(1 - frame[f'{target}_healthy'], 1 - p[f'{target}_healthy'], sample_weight=w)
            )
        parts = []
        for target, grades in TARGETS.items():
            columns = [f'{target}_{g}' for g in grades]
            parts.append((frame[columns].to_numpy(), p[columns].to_numpy(), RSNA_WEIGHTS[target]))
        predicted = 1 - p[[f'{t}_healthy' for t in TARGETS]].min(axis=1).to_numpy()
        injured = frame['any_injury'].to_numpy()
        both = (np.stack([1 - v, v], 1) for v in (injured, predicted))
        parts.append((*both, RSNA_WEIGHTS['any_injury']))
        wanted = [
            log_loss(t.argmax(1), q, labels=range(t.shape[1]), sample_weight=w * (t @ np.array(v, float)))
            for t, q, v in parts
        ]
        assert at[-1] == pytest.approx(np.mean(wanted))
    sure = p * 0 + frame[p.columns].to_numpy()
    assert resampled_rsna_scores(frame, sure, weights[:1])[0] < 1e-12
    assert resampled_rsna_scores(frame, 1 - sure + 1e-300, weights[:1])[0] > 10, 'clipped, not infinite'


def test_two_studies_on_the_patients_of_both():
    frame = labels(n=80, seed=2)
    good, poor = answers(frame, 2.5, 2), answers(frame, 0.2, 3)
    table = compare_studies(good.iloc[5:], poor.iloc[:-5], frame, n=300)
    assert list(table['measure']) == [f'AUC {t}' for t in TARGETS] + ['competition metric'] and set(
        table['patients']
    ) == {70}
    both = frame.iloc[5:-5]
    for row in table.iloc[:-1].itertuples():
        target = row.measure.removeprefix('AUC ')
        y = 1 - both[f'{target}_healthy']
        assert row.one == pytest.approx(roc_auc_score(y, 1 - good.loc[both.index, f'{target}_healthy']))
        assert row.other == pytest.approx(roc_auc_score(y, 1 - poor.loc[both.index, f'{target}_healthy']))
        assert row.difference == pytest.approx(row.one - row.other) and row.low < row.difference < row.high
        assert (row.p < 0.05) == (row.low > 0 or row.high < 0)
    last = table.iloc[-1]
    assert last['difference'] == pytest.approx(last['one'] - last['other']) and last['high'] < 0
    assert last['p'] == pytest.approx(2 / 301), 'no less than the resamples can show'
    weights = bootstrap_weights(np.asarray(both.index), 300, 0)
    gap = resampled_rsna_scores(both, good.loc[both.index], weights) - resampled_rsna_scores(
        both, poor.loc[both.index], weights
    )
    assert (last['low'], last['high']) == pytest.approx(tuple(np.quantile(gap, [0.025, 0.975])))
    assert last['one'] == pytest.approx(resampled_rsna_scores(both, good.loc[both.index], np.ones((1, 70)))[0])
    same = compare_studies(good, good, frame, n=50)
    assert (same['difference'] == 0).all() and same['p'].iloc[-1] == 1.0 and (same[['low', 'high']].iloc[-1] == 0).all()
    again, other = compare_studies(good, poor, frame, n=99), compare_studies(good, poor, frame, n=99, seed=1)
    assert again.equals(compare_studies(good, poor, frame, n=99)) and not again.iloc[-1].equals(other.iloc[-1])
    turned = compare_studies(poor, good, frame, n=99)
    assert turned['difference'].to_numpy() == pytest.approx(-again['difference'].to_numpy())
    healthy = frame.assign(liver_healthy=1, liver_low=0, liver_high=0)
    assert 'AUC liver' not in set(compare_studies(good, poor, healthy, n=20)['measure']), (
        'no area where nobody is injured'
    )
    with pytest.raises(ValueError) as error:
        compare_studies(good.iloc[:5], poor.iloc[5:], frame)
    assert str(error.value) == 'the two studies have no patient in common'
    assert len(compare_studies(good, poor, frame)) == 6


def test_a_study_beside_others(tmp_path, capsys):
    frame = labels(n=40, seed=4)
    for k, name in enumerate(('one', 'two', 'three')):
        p = answers(frame, 2.0 - k, k)
        for fold in (0, 1):
            stored(tmp_path / name / 'tiny', p.iloc[fold::2], fold)
    table = compare_with_others(tmp_path, 'tiny', 'one', ('two', 'absent', 'three'), frame)
    assert capsys.readouterr().out == 'absent has not been run at preset tiny yet\n'
    assert list(table['against']) == ['two'] * 6 + ['three'] * 6 and set(table['patients']) == {40}
    wanted = compare_studies(load_held_out(tmp_path / 'one' / 'tiny'), load_held_out(tmp_path / 'two' / 'tiny'), frame)
    pd.testing.assert_frame_equal(table.iloc[:6][COMPARISON_COLUMNS], wanted[COMPARISON_COLUMNS])
    assert set(compare_with_others(tmp_path, 'tiny', 'one', ('two',), frame, (1,))['patients']) == {20}
    none = compare_with_others(str(tmp_path), 'tiny', 'one', ('absent',), frame)
    assert not len(none) and list(none.columns) == ['against', *COMPARISON_COLUMNS]
    page = comparison_table_html(table, 'Beside others').to_html()
    assert (
        'Beside others' in page and f'{table["difference"].iloc[0]:.3f}' in page and '>two<' in page and '>40<' in page
    )
    assert list(comparison_table_html(wanted, 'x').data.columns) == COMPARISON_COLUMNS and 'level0_row0' not in page


def masks(folder, scores, fold=0, split='test'):
    (folder / f'fold{fold}').mkdir(parents=True, exist_ok=True)
    rows = [{'case': c, 'structure': s, 'dice': d, 'split': split} for (c, s), d in scores.items()]
    pd.DataFrame(rows).to_parquet(folder / f'fold{fold}' / 'predictions.parquet')


def test_two_mask_studies_in_pairs(tmp_path):
    rng, cases = np.random.default_rng(0), [f'c{k}' for k in range(9)]
    a = {(c, s): float(rng.uniform(0.7, 0.9)) for c in cases for s in ('liver', 'tumour')}
    b = {k: v - 0.1 * (k[1] == 'liver') + float(rng.normal(0, 0.01)) for k, v in a.items() if k[0] != 'c8'}
    masks(tmp_path / 'a', a)
    masks(tmp_path / 'b', b)
    masks(tmp_path / 'b', {('c8', 'liver'): 0.1}, 1, 'train')
    table = compare_segmentations(tmp_path / 'a', tmp_path / 'b', n=500)
    assert list(table.columns) == ['structure', 'cases', 'one', 'other', 'difference', 'low', 'high']
    assert list(table['structure']) == ['liver', 'tumour'] and set(table['cases']) == {8}
    pairs, rng = np.array([[a[c, 'liver'], b[c, 'liver']] for c in cases[:8]]), np.random.default_rng(0)
    row, gap = table.iloc[0], pairs[:, 0] - pairs[:, 1]
    assert (row['one'], row['other'], row['difference']) == pytest.approx((*pairs.mean(0), gap.mean()))
    assert (row['low'], row['high']) == pytest.approx(
        tuple(np.quantile(gap[rng.integers(8, size=(500, 8))].mean(1), [0.025, 0.975]))
    )
    assert 0.05 < row['low'] < 0.1 < row['high'] < 0.15 and table['low'].iloc[1] < 0.02
    assert table.equals(compare_segmentations(str(tmp_path / 'a'), str(tmp_path / 'b'), n=500))
    assert not table.equals(compare_segmentations(tmp_path / 'a', tmp_path / 'b', n=500, seed=1))
    assert len(compare_segmentations(tmp_path / 'a', tmp_path / 'b')) == 2
    masks(tmp_path / 'twice', a)
    masks(tmp_path / 'twice', {k: v + 0.02 for k, v in a.items()}, 1)
    twice = compare_segmentations(tmp_path / 'twice', tmp_path / 'a')
    assert twice['difference'].to_numpy() == pytest.approx([0.01, 0.01]), 'a case held out twice counts once'
    for one, other, words in (('a', 'none', 'none: no finished fold; run the study first'),):
        with pytest.raises(FileNotFoundError) as error:
            compare_segmentations(tmp_path / one, tmp_path / other)
        assert str(error.value) == f'{tmp_path}/{words}'
    masks(tmp_path / 'strangers', {('z', 'liver'): 0.5})
    with pytest.raises(ValueError) as error:
        compare_segmentations(tmp_path / 'a', tmp_path / 'strangers')
    assert str(error.value) == 'the two studies have held out no case in common'
    stored(tmp_path / 'trauma', answers(labels(n=4), 1.0, 0), 0)
    with pytest.raises(ValueError) as error:
        compare_segmentations(tmp_path / 'trauma', tmp_path / 'a')
    assert str(error.value) == f'{tmp_path / "trauma"}: not a study of masks'


def test_what_leakage_is_worth():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 2)
    injured, own = np.repeat(rng.integers(0, 2, 40), 2), np.repeat(rng.normal(size=(40, 8)), 2, 0)
    table = leakage_experiment(own + 0.01 * rng.normal(size=own.shape), injured, who, n=100)
    assert list(table.columns) == ['folds by', 'AUC', 'low', 'high'] and list(table['folds by']) == [
        'scan',
        'patient',
    ]
    assert table['AUC'].iloc[0] > 0.75 and table['AUC'].iloc[1] < 0.65
    assert (table['low'] <= table['AUC']).all() and (table['AUC'] <= table['high']).all()
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    features = own + injured[:, None]
    seen = leakage_experiment(features, injured, who, LogisticRegression(), n_folds=3, seed=5, n=50)
    p = cross_val_predict(
        LogisticRegression(),
        features,
        injured,
        groups=who,
        cv=GroupKFold(3, shuffle=True, random_state=5),
        method='predict_proba',
    )[:, 1]
    assert seen['AUC'].iloc[1] == pytest.approx(roc_auc_score(injured, p))
