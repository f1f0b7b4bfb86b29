"""Compare every metric with scikit-learn, scipy or SimpleITK on random predictions, and check every refusal."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve as sk_calibration
from test_comparison import answers
from test_labels import labels

from ctlab.core.anatomy import LABEL_COLUMNS, TARGETS
from ctlab.judge import metrics as m


def binary(n=60, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    score = np.clip(0.35 * truth + rng.random(n) * 0.65, 0, 1)
    return truth, np.round(score, 1) if ties else score


def weights(n, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (3, n)).astype(float)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('ties', [True, False])
def test_areas(seed, ties):
    truth, score = binary(seed=seed, ties=ties)
    w = weights(60, seed)
    assert m.roc_auc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score))
    assert m.average_precision(truth, score) == pytest.approx(sk.average_precision_score(truth, score))
    assert isinstance(m.roc_auc(truth, score, w[0]), float) and isinstance(m.average_precision(truth, score), float)
    assert m.roc_auc(truth, score, w) == pytest.approx([sk.roc_auc_score(truth, score, sample_weight=v) for v in w])
    assert m.average_precision(truth, score, w) == pytest.approx(
        [sk.average_precision_score(truth, score, sample_weight=v) for v in w]
    )
    assert m.roc_auc(truth, -score) == pytest.approx(1 - m.roc_auc(truth, score))
    assert m.roc_auc(truth, 1e6 * score + 3) == pytest.approx(m.roc_auc(truth, score))


def test_areas_of_nothing():
    assert np.isnan(m.roc_auc([0, 0], [0.1, 0.2])) and np.isnan(m.average_precision([0, 0], [0.1, 0.2]))
    assert m.average_precision([1, 1], [0.1, 0.2]) == 1 and np.isnan(m.roc_auc([1, 1], [0.1, 0.2]))
    assert m.roc_auc([0, 1], [0.5, 0.5]) == 0.5 and m.roc_auc([0, 1], [0, 1]) == 1


@pytest.mark.parametrize(
    'truth, score, words',
    [
        ([0, 1], [0.1], 'truth (2,) and score (1,) must have the same number of rows'),
        ([[0, 1]], [0.1], 'truth (1, 2) and score (1,) must have the same number of rows'),
        ([], [], 'no rows: a metric needs at least one'),
        ([0, 1], [0.1, np.nan], 'scores hold NaN or infinity'),
        ([0, 1], [0.1, np.inf], 'scores hold NaN or infinity'),
    ],
)
def test_what_cannot_be_judged(truth, score, words):
    for metric in (m.roc_auc, m.average_precision, m.binary_metrics, m.calibration_curve, m.net_benefit):
        with pytest.raises(ValueError) as error:
            metric(truth, score)
        assert str(error.value) == words


def test_confusions():
    rng = np.random.default_rng(0)
    truth, said, w = rng.integers(0, 3, 50), rng.integers(0, 3, 50), weights(50)
    assert np.array_equal(m.confusion_matrix(truth, said, 3), sk.confusion_matrix(truth, said))
    assert np.allclose(
        m.confusion_matrix(truth, said, 3, w), [sk.confusion_matrix(truth, said, sample_weight=v) for v in w]
    )
    assert m.confusion_matrix(truth, said, 4).shape == (4, 4) and m.confusion_matrix(truth, said, 3, w[0]).shape == (
        3,
        3,
    )


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_binary_metrics(threshold):
    truth, p = binary(seed=3)
    for w in (None, weights(60)[1]):
        got, called = m.binary_metrics(truth, p, threshold, w), (p >= threshold).astype(int)
        wanted = {
            'accuracy': sk.accuracy_score(truth, called, sample_weight=w),
            'f1': sk.f1_score(truth, called, sample_weight=w),
            'precision': sk.precision_score(truth, called, sample_weight=w),
            'recall': sk.recall_score(truth, called, sample_weight=w),
            'specificity': sk.recall_score(1 - truth, 1 - called, sample_weight=w),
            'balanced_accuracy': sk.balanced_accuracy_score(truth, called, sample_weight=w),
            'auc_roc': sk.roc_auc_score(truth, p, sample_weight=w),
            'average_precision': sk.average_precision_score(truth, p, sample_weight=w),
            'brier': sk.brier_score_loss(truth, p, sample_weight=w),
            'log_loss': sk.log_loss(truth, np.clip(p, 1e-15, 1 - 1e-15), sample_weight=w),
            'likelihood_ratio_positive': sk.class_likelihood_ratios(truth, called, sample_weight=w)[0],
            'likelihood_ratio_negative': sk.class_likelihood_ratios(truth, called, sample_weight=w)[1],
        }
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            assert got[name] == pytest.approx(np.inf if np.isnan(value) else value), name
    every = m.binary_metrics(truth, p, threshold, weights(60))
    assert all(v.shape == (3,) for v in every.values()) and every['f1'][1] == pytest.approx(got['f1'])
    assert m.binary_metrics(truth, p)['recall'] == m.binary_metrics(truth, p, 0.5)['recall']


def test_binary_metrics_at_the_ends():
    got = m.binary_metrics([0, 1, 1], [0.0, 1.0, 0.0])
    assert got['log_loss'] == pytest.approx(-np.log(1e-15) / 3, rel=1e-3) and got['likelihood_ratio_positive'] == np.inf
    got = m.binary_metrics([0, 0], [0.1, 0.9])
    assert (got['precision'], got['recall'], got['f1'], got['specificity']) == (0, 0, 0, 0.5) and np.isnan(
        got['auc_roc']
    )
    got = m.binary_metrics([1, 1], [0.1, 0.9])
    assert got['specificity'] == 0 and got['likelihood_ratio_negative'] == np.inf and got['precision'] == 1


def three(n=80, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=(0.6, 0.25, 0.15))
    logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[truth]
    return truth, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize('weighted', [False, True])
def test_metrics_of_many_classes(weighted):
    truth, p = three()
    w = weights(80)[2] if weighted else None
    got, called = m.multiclass_metrics(truth, p, w), p.argmax(1)
    area = [sk.roc_auc_score(truth == c, p[:, c], sample_weight=w) for c in range(3)]
    share = np.bincount(truth, w, 3) / np.bincount(truth, w, 3).sum()
    specificity = [sk.recall_score(truth != c, called != c, sample_weight=w) for c in range(3)]

    def mean(metric, average):
        return metric(truth, called, average=average, sample_weight=w, zero_division=0)

    wanted = {
        'accuracy': sk.accuracy_score(truth, called, sample_weight=w),
        'auc_roc': np.dot(area, share),
        'f1': mean(sk.f1_score, 'weighted'),
        'precision': mean(sk.precision_score, 'weighted'),
        'recall': mean(sk.recall_score, 'weighted'),
        'specificity': np.dot(specificity, share),
        'balanced_accuracy': sk.balanced_accuracy_score(truth, called, sample_weight=w),
        'auc_roc_macro': np.mean(area),
        'f1_macro': mean(sk.f1_score, 'macro'),
        'precision_macro': mean(sk.precision_score, 'macro'),
        'recall_macro': mean(sk.recall_score, 'macro'),
        'brier': np.average(((p - np.eye(3)[truth]) ** 2).sum(1), weights=w),
        'log_loss': sk.log_loss(truth, p, sample_weight=w, labels=[0, 1, 2]),
    }
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value), name
    every = m.multiclass_metrics(truth, p, weights(80))
    assert all(v.shape == (3,) for v in every.values())
    if weighted:
        assert {k: v[2] for k, v in every.items()} == pytest.approx(got)


def test_a_class_that_nobody_has():
    truth, p = three()
    truth[truth == 2] = 1
    got = m.multiclass_metrics(truth, p)
    areas = [sk.roc_auc_score(truth == c, p[:, c]) for c in range(2)]
    assert got['auc_roc_macro'] == pytest.approx(np.mean(areas)) and got['auc_roc'] == pytest.approx(
        np.average(areas, weights=np.bincount(truth))
    )
    assert (
        got['recall_macro']
        == got['balanced_accuracy']
        == pytest.approx(np.mean([(p[truth == c].argmax(1) == c).mean() for c in range(2)]))
    )
    assert np.isnan(m.multiclass_metrics(truth * 0, p)['auc_roc']) and np.isnan(
        m.multiclass_metrics(truth * 0, p)['auc_roc_macro']
    )
    got = m.multiclass_metrics([0, 1], [[0.5, 0.5, 1.0], [0.0, 0.0, 2.0]])
    assert got['log_loss'] == pytest.approx(-(np.log(0.25) + np.log(1e-15)) / 2)
    for truth in ([0, 3, 1], [0, -1, 2]):
        with pytest.raises(ValueError) as error:
            m.multiclass_metrics(truth, np.ones((3, 3)) / 3)
        assert str(error.value) == 'classes must be 0 to 2'


def test_resampling_is_by_patient():
    groups = np.array(['b', 'a', 'b', 'c', 'a', 'b'])
    w = m.bootstrap_weights(groups, 500, 3)
    assert (
        w.shape == (500, 6) and (w[:, 0] == w[:, 2]).all() and (w[:, 0] == w[:, 5]).all() and (w[:, 1] == w[:, 4]).all()
    )
    assert (w[:, [0, 1, 3]].sum(1) == 3).all() and abs(w[:, 0].mean() - 1) < 0.1
    assert np.array_equal(w, m.bootstrap_weights(groups, 500, 3)) and not np.array_equal(
        w, m.bootstrap_weights(groups, 500, 4)
    )
    assert m.bootstrap_weights(groups).shape == (2000, 6) and np.array_equal(
        m.bootstrap_weights(groups), m.bootstrap_weights(groups, 2000, 0)
    )


def test_intervals():
    truth, p = binary(200, 5, False)
    groups = np.repeat(np.arange(100), 2)
    value, low, high = m.bootstrap('auc_roc', truth, p, groups, n=400, seed=2)
    spread = m.roc_auc(truth, p, m.bootstrap_weights(groups, 400, 2))
    assert (value, low, high) == pytest.approx((sk.roc_auc_score(truth, p), *np.quantile(spread, [0.025, 0.975])))
    assert m.bootstrap('auc_roc', truth, p, groups, n=400, seed=2, level=0.5)[1:] == pytest.approx(
        tuple(np.quantile(spread, [0.25, 0.75]))
    )
    assert m.bootstrap('roc_auc', truth, p, groups, 400, 2) == (value, low, high)
    assert m.bootstrap('accuracy', truth, p, n=300)[0] == pytest.approx(sk.accuracy_score(truth, p >= 0.5))
    assert m.bootstrap('f1', truth, p) == m.bootstrap('f1', truth, p, np.arange(200), 2000, 0, 0.95)
    own = m.bootstrap(lambda t, s: sk.roc_auc_score(t, s), truth, p, groups, n=400, seed=2)
    assert (
        own[0] == pytest.approx(value)
        and own[1] == pytest.approx(low, abs=0.03)
        and own[2] == pytest.approx(high, abs=0.03)
    )
    rng, rows = np.random.default_rng(2), np.arange(200).reshape(100, 2)
    drawn = [sk.roc_auc_score(truth[t], p[t]) for t in (rows[rng.integers(100, size=100)].ravel() for _ in range(400))]
    assert own[1:] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    t3, p3 = three()
    assert m.bootstrap('f1_macro', t3, p3, n=50)[0] == pytest.approx(sk.f1_score(t3, p3.argmax(1), average='macro'))
    assert m.bootstrap('auc_roc', t3, p3, n=50)[0] == pytest.approx(m.multiclass_metrics(t3, p3)['auc_roc'])
    big = m.bootstrap('accuracy', np.tile(truth, 30), np.tile(p, 30), np.tile(groups, 30), n=1500)
    assert big[1:] == pytest.approx(m.bootstrap('accuracy', truth, p, groups, n=1500)[1:]), 'in parts as in one'


def test_intervals_that_there_are_none_of():
    assert np.isnan(m.bootstrap('auc_roc', [0, 0, 0], [0.1, 0.2, 0.3], n=20)).all()
    value, low, high = m.bootstrap('auc_roc', [0, 0, 1], [0.1, 0.2, 0.3], n=200)
    assert (value, low, high) == (1, 1, 1), 'resamples without an injured patient are left out'

    def never(t, s):
        if len(set(t)) < 2:
            raise ValueError
        return 1.0

    assert m.bootstrap(never, np.array([0, 0, 1]), np.zeros(3), n=50) == (1, 1, 1)
    with pytest.raises(ValueError, match='^2 groups for 3 rows$'):
        m.bootstrap('f1', [0, 1, 1], [0.1, 0.2, 0.3], [1, 2])
    with pytest.raises(ValueError) as error:
        m.bootstrap('beauty', [0, 1], [0.1, 0.2])
    assert str(error.value).startswith("no metric is called 'beauty'; choose from accuracy, auc_roc, f1, precision, ")


def test_the_table_of_a_study():
    truth2, p2 = binary(90, 7, False)
    t3, p3 = three(90)
    groups = np.repeat(np.arange(45), 2)
    table = m.metrics_table(
        pd.DataFrame({'bowel': truth2, 'liver': t3}), {'bowel': p2, 'liver': p3}, groups, n=200, seed=4
    )
    assert list(table.columns) == ['target', 'metric', 'value', 'low', 'high', 'n'] and set(table['n']) == {45}
    assert list(zip(table['target'], table['metric'])) == [(t, k) for t in ('bowel', 'liver') for k in m.TABLE_METRICS]
    w = m.bootstrap_weights(groups, 200, 4)
    for row in table.itertuples():
        kind, t, p = (m.binary_metrics, truth2, p2) if row.target == 'bowel' else (m.multiclass_metrics, t3, p3)
        assert row.value == pytest.approx(kind(t, p)[row.metric])
        assert (row.low, row.high) == pytest.approx(
            tuple(np.nanquantile(kind(t, p, weight=w)[row.metric], [0.025, 0.975]))
        )
    one = m.metrics_table(pd.DataFrame({'bowel': truth2 * 0}), {'bowel': p2}, list(groups), ('auc_roc', 'brier'), n=30)
    assert list(one['metric']) == ['auc_roc', 'brier'] and np.isnan(one[['low', 'high']].iloc[0]).all()
    default = m.metrics_table(pd.DataFrame({'bowel': truth2}), {'bowel': p2}, groups)
    assert default.equals(
        m.metrics_table(pd.DataFrame({'bowel': truth2}), {'bowel': p2}, groups, m.TABLE_METRICS, 2000, 0)
    )


def test_delong_by_its_definition():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 70)
    a, b = truth + rng.normal(0, 1, 70), np.round(truth * 0.4 + rng.normal(0, 1, 70), 1)

    def structural(s):
        x, y = s[truth == 1], s[truth == 0]
        psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        return psi.mean(1), psi.mean(0)

    (xa, ya), (xb, yb) = structural(a), structural(b)
    variance = np.var(xa - xb, ddof=1) / len(xa) + np.var(ya - yb, ddof=1) / len(ya)
    gap = xa.mean() - xb.mean()
    got = m.delong(truth, a, list(b))
    assert got['first'] == pytest.approx(sk.roc_auc_score(truth, a)) and got['second'] == pytest.approx(
        sk.roc_auc_score(truth, b)
    )
    assert got['difference'] == pytest.approx(gap)
    half = stats.norm.ppf(0.975) * variance**0.5
    assert (got['low'], got['high']) == pytest.approx((gap - half, gap + half))
    assert got['p'] == pytest.approx(2 * stats.norm.sf(abs(gap) / variance**0.5))
    assert m.delong(truth, a, a)['p'] == 1 and m.delong(truth, a, a)['difference'] == 0
    for one in (0, 1):
        with pytest.raises(ValueError, match='^DeLong needs injured and healthy patients$'):
            m.delong([one] * 3, [1, 2, 3], [1, 2, 3])


def test_calibration():
    truth, p = binary(300, 8, False)
    table = m.calibration_curve(truth, p)
    observed, promised = sk_calibration(truth, p, n_bins=10)
    assert (
        np.allclose(table['observed'], observed)
        and np.allclose(table['promised'], promised)
        and table['n'].sum() == 300
    )
    assert list(table.columns) == ['promised', 'observed', 'n'] and list(table.index) == list(range(len(table)))
    assert len(m.calibration_curve(truth, p, 4)) <= 4 and len(m.calibration_curve([1, 0], [1.0, 1.0])) == 1
    wanted = np.average(np.abs(observed - promised), weights=table['n'])
    assert (
        m.expected_calibration_error(truth, p) == pytest.approx(wanted)
        and m.expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    )
    assert m.expected_calibration_error(truth, p, 3) == pytest.approx(
        np.average(
            np.abs(np.subtract(*sk_calibration(truth, p, n_bins=3))), weights=m.calibration_curve(truth, p, 3)['n']
        )
    )


@pytest.mark.parametrize('temperature', [0.5, 1.7, 3.0])
def test_a_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 20000)
    truth = (rng.random(20000) < 1 / (1 + np.exp(-z))).astype(int)
    assert m.fit_temperature(truth, z * temperature) == pytest.approx(temperature, rel=0.06)
    z = rng.normal(0, 2, (20000, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    truth = (rng.random((20000, 1)) > p.cumsum(1)).sum(1)
    assert m.fit_temperature(truth, z * temperature) == pytest.approx(temperature, rel=0.06)


def test_decision_curves():
    truth, p = binary(100, 9)
    table = m.net_benefit(truth, p, [0.1, 0.3, 0.5])
    for t, row in zip((0.1, 0.3, 0.5), table.itertuples()):
        hits, false = ((p >= t) & (truth == 1)).mean(), ((p >= t) & (truth == 0)).mean()
        assert row.model == pytest.approx(hits - t / (1 - t) * false) and row.threshold == t
        assert row.treat_all == pytest.approx(truth.mean() - t / (1 - t) * (1 - truth.mean()))
    usual = m.net_benefit(truth, p)
    assert list(usual.columns) == ['threshold', 'model', 'treat_all'] and np.allclose(
        usual['threshold'], np.linspace(0.01, 0.6, 60)
    )


def test_thresholds():
    truth, p = binary(80, 10)
    scores = {t: m.binary_metrics(truth, p, t) for t in np.unique(p)}

    def best(value):
        return next(t for t, v in scores.items() if value(v) == max(map(value, scores.values())))

    assert (
        m.choose_threshold(truth, p)
        == best(lambda v: v['recall'] + v['specificity'])
        == m.choose_threshold(truth, p, 'youden')
    )
    assert m.choose_threshold(truth, p, 'f1') == best(lambda v: v['f1'])
    assert m.choose_threshold(truth, p, '0.9') == max(t for t, v in scores.items() if v['recall'] >= 0.9)
    assert m.choose_threshold(truth, p, '1.1') == min(p)
    fpr, tpr, at = sk.roc_curve(truth, p)
    assert max(tpr - fpr) == pytest.approx(
        scores[m.choose_threshold(truth, p)]['recall'] + scores[m.choose_threshold(truth, p)]['specificity'] - 1
    )


def test_bayes():
    assert (
        m.posterior_probability(0.2, 8) == pytest.approx(0.2 * 8 / (0.2 * 8 + 0.8))
        and m.posterior_probability(0, 5) == 0
        and m.posterior_probability(0.5, np.inf) == 1
    )
    for prior in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError) as error:
            m.posterior_probability(prior, 2)
        assert str(error.value) == f'a prior lies between 0 and 1, got {prior}'


def test_the_competition_s_metric():
    frame = labels(n=60, seed=5)
    p = answers(frame, 1.0, 5)
    got = m.rsna_losses(frame, p.sample(frac=1, random_state=0))
    for target, grades in TARGETS.items():
        columns, value = [f'{target}_{g}' for g in grades], np.array(m.RSNA_WEIGHTS[target], float)
        truth = frame[columns].to_numpy().argmax(1)
        assert got[target] == pytest.approx(
            sk.log_loss(truth, p[columns], sample_weight=value[truth], labels=range(len(grades)))
        )
    predicted = 1 - p[[f'{t}_healthy' for t in TARGETS]].min(axis=1)
    injured = frame['any_injury'].to_numpy()
    assert got['any_injury'] == pytest.approx(
        sk.log_loss(injured, predicted, sample_weight=np.where(injured, 6.0, 1.0))
    )
    assert list(got) == [*TARGETS, 'any_injury'] and m.rsna_score(frame, p) == pytest.approx(
        np.mean(list(got.values()))
    )
    assert m.rsna_score(frame, frame[LABEL_COLUMNS].astype(float)) < 1e-12
    eps = np.finfo(float).eps
    sure = frame[LABEL_COLUMNS].astype(float)
    sure[['bowel_healthy', 'bowel_injury']] = sure[['bowel_injury', 'bowel_healthy']].to_numpy()
    assert m.rsna_losses(frame, sure)['bowel'] == pytest.approx(-np.log(eps))
    loose = p * 1.005
    assert m.rsna_losses(frame, loose)['liver'] == pytest.approx(got['liver']), (
        'what sums to one within a hundredth is scaled'
    )


def test_predictions_that_are_none():
    frame = labels(n=10)
    p = answers(frame, 1.0, 0)
    bad, zero, far, lost = (p.copy() for _ in range(4))
    lost.iloc[0, 3] = np.nan
    bad.iloc[0, 0], bad.iloc[0, 1] = -0.2, 1.2
    zero.loc[zero.index[:2], ['liver_healthy', 'liver_low', 'liver_high']] = 0
    far.loc[far.index[3], 'bowel_healthy'] += 0.5
    total = far.loc[far.index[3], ['bowel_healthy', 'bowel_injury']].sum()
    for wrong, words in (
        (p.drop(columns=['bowel_injury', 'liver_low']), 'the predictions lack the columns bowel_injury, liver_low'),
        (p.iloc[4:], f'the predictions must hold every patient once; 4 are missing, first {list(p.index[:3])}'),
        (pd.concat([p, p.iloc[:1]]), 'the predictions must hold every patient once; 0 are missing, first []'),
        (lost, 'the predictions hold NaN or infinity'),
        (bad, 'the predictions hold negative probabilities'),
        (zero, 'the probabilities of liver sum to zero for 2 patients'),
        (far, f'the probabilities of bowel sum to {total:.3f} for a patient; expected 1'),
    ):
        with pytest.raises(ValueError) as error:
            m.rsna_score(frame, wrong)
        assert str(error.value) == words
    with pytest.raises(ValueError, match='^no patients to score$'):
        m.rsna_score(frame.iloc[:0], p)
    with pytest.raises(ValueError, match='every patient once'):
        m.rsna_score(pd.concat([frame, frame.iloc[:1]]), p)
    assert m.rsna_score(frame.iloc[:6], p) == m.rsna_score(frame.iloc[:6], p.iloc[:6]), 'others may be there'


def blobs(seed, shape=(14, 16, 18)):
    rng = np.random.default_rng(seed)
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(rng.normal(size=shape), 2.0)
    made = smooth > np.quantile(smooth, 0.8)
    return made, np.roll(made, (1, 0, 2), (0, 1, 2)) & (rng.random(shape) > 0.02)


@pytest.mark.parametrize('seed', range(4))
def test_overlaps_are_simpleitk_s(seed):
    pred, true = blobs(seed)
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(*(sitk.GetImageFromArray(x.astype(np.uint8)) for x in (true, pred)))
    assert m.dice(pred, true) == pytest.approx(measure.GetDiceCoefficient())
    assert m.jaccard(pred, true) == pytest.approx(measure.GetJaccardCoefficient())
    assert m.mask_sensitivity(pred, true) == pytest.approx(sk.recall_score(true.ravel(), pred.ravel()))
    assert m.mask_specificity(pred, true) == pytest.approx(sk.recall_score(~true.ravel(), ~pred.ravel()))
    assert m.volume_error(pred, true, (3.0, 2.0, 1.5)) == pytest.approx((int(pred.sum()) - int(true.sum())) * 9 / 1000)
    assert m.volume_error(pred, true) == pytest.approx((int(pred.sum()) - int(true.sum())) / 1000)
    assert m.dice(pred * 7, true * 3) == m.dice(pred, true), 'any number is inside'


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('spacing', [1.0, (3.0, 2.0, 1.5)])
def test_distances_are_those_between_surface_voxels(seed, spacing):
    from scipy.ndimage import binary_erosion
    from scipy.spatial.distance import cdist

    pred, true = blobs(seed)

    def edge(mask):
        return np.argwhere(mask & ~binary_erosion(mask)) * np.broadcast_to(spacing, 3)

    all_ = cdist(edge(pred), edge(true))
    a, b = all_.min(1), all_.min(0)
    assert m.hausdorff(pred, true, spacing) == pytest.approx(max(a.max(), b.max()))
    assert m.hausdorff95(pred, true, spacing) == pytest.approx(max(np.percentile(a, 95), np.percentile(b, 95)))
    assert m.average_surface_distance(pred, true, spacing) == pytest.approx(np.r_[a, b].mean())
    for tolerance in (0.0, 1.0, 2.0):
        assert m.surface_dice(pred, true, spacing, tolerance) == pytest.approx((np.r_[a, b] <= tolerance).mean())
    assert m.surface_dice(pred, true, spacing) == m.surface_dice(pred, true, spacing, 2.0)
    import torch
    from monai.metrics import compute_hausdorff_distance

    pair = (torch.from_numpy(x[None, None]) for x in (pred, true))
    assert m.hausdorff95(pred, true, spacing) == pytest.approx(
        float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)), rel=1e-4
    )


def test_masks_at_the_edge_of_the_picture_and_in_two_dimensions():
    pred, true = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    pred[:2], true[:3] = True, True
    assert m.hausdorff(pred, true, (5.0, 1.0, 1.0)) == 5.0 and m.hausdorff95(pred[0], true[0]) == 0
    far = np.zeros((1, 40), bool)
    far[0, 0] = True
    assert m.hausdorff(far, np.roll(far, 30), (1.0, 2.0)) == 60.0


def test_empty_masks():
    none, some = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert (
        m.dice(none, none) == m.jaccard(none, none) == m.surface_dice(none, none) == 1
        and m.hausdorff95(none, none) == 0
    )
    assert m.dice(some, none) == m.jaccard(none, some) == m.surface_dice(some, none) == m.surface_dice(none, some) == 0
    for metric in (m.hausdorff, m.hausdorff95, m.average_surface_distance):
        assert np.isnan(metric(none, some)) and np.isnan(metric(some, none)) and metric(none, none) == 0
    assert np.isnan(m.mask_sensitivity(some, none)) and np.isnan(m.mask_specificity(none, some))
    assert m.mask_sensitivity(none, some) == 0 and m.mask_specificity(some, none) == 0
    for metric in (
        m.dice,
        m.jaccard,
        m.mask_sensitivity,
        m.mask_specificity,
        m.hausdorff95,
        m.surface_dice,
        m.volume_error,
    ):
        with pytest.raises(ValueError) as error:
            metric(np.zeros((2, 3)), np.zeros((3, 2)))
        assert str(error.value) == 'the masks differ in shape: (2, 3) and (3, 2); resample one onto the other'
    for spacing in (0, -1, (1.0, 0.0, 1.0)):
        with pytest.raises(ValueError) as error:
            m.hausdorff95(some, some, spacing)
        assert (
            str(error.value)
            == f'spacing must be positive, got {np.broadcast_to(np.asarray(spacing, float), 3).tolist()}'
        )
