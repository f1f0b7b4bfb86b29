"""The auditor's arithmetic, rule by rule, and what it says, to the word."""

import numpy as np
import pandas as pd
import pytest

from ctlab.judge import audit
from ctlab.judge.audit import METRIC_ROLES, AuditReport, audit_table, corrected_table, read_metrics_table
from ctlab.judge.metrics import binary_metrics, multiclass_metrics

STEP = 1e-4


def row(order=METRIC_ROLES, **values):
    return [values[name] for name in order]


def binary(seed, n=400, skill=1.2, digits=4):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(int)
    found = binary_metrics(truth, 1 / (1 + np.exp(-(rng.normal(size=n) + skill * (truth - 0.6)))))
    return {k: round(found[k], digits) for k in METRIC_ROLES}


def many(seed, n=400, skill=1.2, digits=4):
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=(0.7, 0.2, 0.1))
    logits = rng.normal(size=(n, 3)) + skill * np.eye(3)[truth] + (1, 0, 0)
    found = multiclass_metrics(truth, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    return {k: round(found[k], digits) for k in METRIC_ROLES}


@pytest.mark.parametrize('seed', range(12))
def test_true_rows_break_no_rule_and_hold_their_identity(seed):
    assert audit._violations(row(**binary(seed)), METRIC_ROLES, True, STEP) == ((1, 0), (0, 0))
    assert audit._violations(row(**many(seed)), METRIC_ROLES, False, STEP) == ((1, 1), (0, 0))


@pytest.mark.parametrize(
    'change, pooled, averaged',
    [
        ({'accuracy': 1.2}, 1, 1),
        ({'auc_roc': -0.1}, None, 1),
        ({'f1': 0.9}, 2, 1),
        ({'f1': 0.1}, 1, 0),
    ],
)
def test_each_rule_that_a_row_of_two_classes_breaks_is_counted(change, pooled, averaged):
    """Precision .6 and recall .5 give an F1 of .545: .9 is above their mean, .1 is below their harmonic mean."""
    good = {'accuracy': 0.8, 'auc_roc': 0.75, 'f1': round(2 * 0.6 * 0.5 / 1.1, 4), 'precision': 0.6, 'recall': 0.5}
    held, broken = audit._violations(row(**good | change), METRIC_ROLES, True, STEP)
    assert broken[1] == averaged and (pooled is None or broken[0] == pooled)
    assert held == ((0, 0) if 'f1' in change else (1, 0))


def test_rows_of_many_classes_hold_recall_and_accuracy_equal():
    good = {'accuracy': 0.8, 'auc_roc': 0.9, 'f1': 0.78, 'precision': 0.79, 'recall': 0.8}
    assert audit._violations(row(**good), METRIC_ROLES, False, STEP) == ((1, 1), (0, 0))
    assert audit._violations(row(**good | {'recall': 0.8001}), METRIC_ROLES, False, STEP) == ((1, 1), (0, 0)), (
        'to rounding'
    )
    assert audit._violations(row(**good | {'recall': 0.8003}), METRIC_ROLES, False, STEP) == ((0, 0), (1, 1))
    assert audit._violations(row(**good | {'f1': 0.85, 'accuracy': 1.1}), METRIC_ROLES, False, STEP) == ((0, 0), (3, 3))


def test_what_is_missing_breaks_nothing():
    roles = ('accuracy', 'auc_roc')
    assert audit._violations([0.8, 0.9], roles, True, STEP) == ((0, 0), (0, 0))
    assert audit._violations([0.8, 1.9], roles, True, STEP) == ((0, 0), (1, 1))
    assert audit._violations([0.0, 0.0, 0.0], ('f1', 'precision', 'recall'), True, STEP) == ((0, 0), (0, 0)), (
        'nobody called'
    )
    assert audit._violations([0.5, 0.5, 0.5], ('f1', 'precision', 'recall'), True, STEP) == ((1, 0), (0, 0))
    assert audit._violations([0.3, 0.0, 0.5], ('f1', 'precision', 'recall'), True, STEP) == ((0, 0), (2, 1))


@pytest.mark.parametrize('share, recall, fpr', [(0.1, 0.6, 0.2), (0.3, 0.8, 0.1), (0.5, 0.5, 0.4), (0.05, 0.9, 0.02)])
def test_areas_that_an_operating_point_allows(share, recall, fpr):
    """Check the bounds: the curve through (fpr, recall) lies above its two chords and below the best curve."""
    precision = share * recall / (share * recall + (1 - share) * fpr)
    accuracy = share * recall + (1 - share) * (1 - fpr)
    low, high = recall * (1 - fpr), 1 - fpr * (1 - recall)

    def possible(area):
        return audit._auc_possible(accuracy, area, precision, recall, 1e-6)

    assert possible((low + high) / 2) and possible(low + 1e-4) and possible(high - 1e-4)
    assert not possible(low - 0.02) and not possible(high + 0.02)


def test_operating_points_that_say_nothing_or_cannot_be():
    assert audit._auc_possible(np.nan, 0.1, 0.5, 0.5, STEP) and audit._auc_possible(0.8, np.nan, 0.5, 0.5, STEP)
    assert audit._auc_possible(0.8, 0.1, 2 * STEP, 0.5, STEP) and audit._auc_possible(0.8, 0.1, 0.5, 2 * STEP, STEP)
    assert audit._auc_possible(1 - 2 * STEP, 0.1, 0.5, 0.5, STEP)
    assert audit._auc_possible(0.5, 0.3, 1.0, 1.0, STEP), 'no share can be worked out'
    assert not audit._auc_possible(0.1, 0.7, 0.5, 0.9, STEP), 'a prevalence of 0.9 with as many false alarms as hits'
    assert not audit._auc_possible(0.05, 0.6, 0.9, 0.2, STEP), 'a prevalence above one'


def test_numbers_are_fractions_with_the_size_of_their_last_digit():
    frame = pd.DataFrame({'AUC': ['81.5', '90.25%'], ' F1 ': ['50 %', 7]})
    columns, roles = audit._columns(frame)
    assert (columns, roles) == (['AUC', ' F1 '], ['auc_roc', 'f1'])
    values, step = audit._values(frame, columns)
    assert np.allclose(values, [[0.815, 0.5], [0.9025, 0.07]]) and step == pytest.approx(1e-4)
    for cells, scale, step in (
        (['0.5', '0.123'], 1, 1e-3),
        (['1', '0'], 1, 1),
        (['50', '60'], 100, 0.01),
        (['1.5', '1.0'], 1, 0.1),
        (['1.6', '1.0'], 100, 0.001),
        (['0.123456789', '0'], 1, 1e-7),
        (['81.5234', '7'], 100, 1e-6),
    ):
        values, found = audit._values(pd.DataFrame({'AUC': cells, 'F1': cells}), ['AUC', 'F1'])
        assert np.allclose(values[:, 0], np.array(cells, float) / scale) and found == pytest.approx(step)
    with pytest.raises(ValueError) as error:
        audit._values(pd.DataFrame({'AUC': ['x', 1]}), ['AUC'])
    assert str(error.value) == 'the table holds cells that are no numbers'


@pytest.mark.parametrize('names', [['a', 'b'], ['AUC'], ['AUC', 'auroc', 'F1'], ['acc', 'accuracy']])
def test_columns_that_are_none(names):
    frame = pd.DataFrame([[1] * len(names)], columns=names)
    with pytest.raises(ValueError) as error:
        audit_table(frame)
    assert str(error.value) == (
        'expected columns named accuracy, AUC, F1, precision, recall, each once; found ' + ', '.join(names)
    )


@pytest.mark.parametrize(
    'name, role',
    [
        ('Acc', 'accuracy'),
        ('AUROC', 'auc_roc'),
        ('roc-auc', 'auc_roc'),
        ('PPV', 'precision'),
        ('Sensitivity', 'recall'),
        ('F1-score', 'f1'),
        ('f1 score', 'f1'),
    ],
)
def test_columns_by_other_names(name, role):
    assert audit._columns(pd.DataFrame(columns=[name, 'accuracy' if role != 'accuracy' else 'auc']))[1][0] == role


def test_which_rows_are_of_two_classes():
    values = np.array([[0.8, 0.7, 0.6, 0.5, 0.4], [0.8, 0.7, 0.6, 0.5, 0.8]])
    for names, wanted in (
        (['B', 'L'], [True, False]),
        (['bowel', 'liver'], [True, False]),
        (['E', 'k'], [True, False]),
        (['extravasation ', 'SPLEEN'], [True, False]),
        (['x', 'y'], [True, False]),
    ):
        assert audit._is_binary(pd.DataFrame({'target': names}), values, STEP) == wanted
    assert audit._is_binary(pd.DataFrame(index=range(2)), values, STEP) == [True, False]
    near = np.array([[0.8, 0.7, 0.6, 0.5, 0.80015], [0.8, 0.7, 0.6, 0.5, 0.8002]])
    assert audit._is_binary(pd.DataFrame(index=range(2)), near, STEP) == [False, True]


def test_evidence_is_the_better_of_pooled_and_averaged():
    values = np.array([row(**binary(k)) for k in range(3)] + [row(**many(k)) for k in range(2)])
    kinds = [True] * 3 + [False] * 2
    score, broken = audit._evidence(values, METRIC_ROLES, kinds, STEP)
    assert score == pytest.approx(5 * 6) and broken.tolist() == [0] * 5
    values[0, 0] = 1.5
    score, broken = audit._evidence(values, METRIC_ROLES, kinds, STEP)
    assert score == pytest.approx(4 * 6) and broken.tolist() == [1, 0, 0, 0, 0]
    values[:3, 2] = 0.01
    score, broken = audit._evidence(values, METRIC_ROLES, kinds, STEP)
    assert score == pytest.approx(2 * 6 - 6 - 2) and broken.tolist() == [1, 0, 0, 0, 0], (
        'averaged: F1 below is possible'
    )


def table(order=METRIC_ROLES, seeds=range(3)):
    lines = [{'target': 'B', 'split': 'valid'} | binary(k) for k in seeds] + [
        {'target': 'L', 'split': 'valid'} | many(k) for k in seeds
    ]
    frame = pd.DataFrame(lines)
    return frame.rename(columns=dict(zip(METRIC_ROLES, order)))


def test_a_sound_table():
    found = audit_table(table())
    assert (
        found.consistent
        and found.columns == found.printed == list(METRIC_ROLES)
        and found.evidence == 0
        and not found.ties
    )
    assert found.margin > 9 and (found.rows[['broken_as_printed', 'broken_as_found']] == 0).all(axis=None)
    assert list(found.rows.columns) == ['target', 'split', 'broken_as_printed', 'broken_as_found']
    assert (
        str(found).splitlines()[0]
        == 'The header is consistent with its rows (accuracy, auc_roc, f1, precision, recall).'
    )


@pytest.mark.parametrize('a, b', [(0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (1, 4)])
def test_two_columns_that_changed_places(a, b):
    order = list(METRIC_ROLES)
    order[a], order[b] = order[b], order[a]
    found = audit_table(table(order))
    assert not found.consistent and found.printed == order and found.columns == list(METRIC_ROLES)
    home, _ = audit._evidence(
        *(lambda v, s: (v, order, [True] * 3 + [False] * 3, s))(*audit._values(table(order), order))
    )
    best, _ = audit._evidence(
        *(lambda v, s: (v, list(METRIC_ROLES), [True] * 3 + [False] * 3, s))(*audit._values(table(order), order))
    )
    assert found.evidence == pytest.approx(best - home) and found.margin > 0
    said = str(found)
    broken = int((found.rows['broken_as_printed'] > 0).sum())
    assert (
        said.splitlines()[0]
        == f'The header is wrong. Printed: {", ".join(order)}. The rows say: {", ".join(METRIC_ROLES)}.'
    )
    assert said.splitlines()[1] == (
        f'{broken} of 6 rows contradict the printed header, 0 the found one; evidence '
        f'{found.evidence:.0f} nats, {found.margin:.0f} ahead of the next order.'
    )


def test_what_the_rows_cannot_tell_apart_is_named_and_the_printed_order_has_the_doubt():
    frame = pd.DataFrame([{'target': 'B', 'f1': 0.5, 'precision': 0.5, 'recall': 0.5}] * 3)
    found = audit_table(frame)
    assert found.consistent and found.ties == [] or found.columns == ['f1', 'precision', 'recall']
    two = audit_table(pd.DataFrame({'accuracy': [0.8, 0.7], 'auc': [0.9, 0.8]}))
    assert two.consistent and two.ties == [['auc_roc', 'accuracy']] and two.margin == pytest.approx(3)
    assert list(two.rows.columns) == ['broken_as_printed', 'broken_as_found']


def flags(rows, prevalence=None):
    frame = pd.DataFrame(rows)
    return audit._flags(frame, frame.drop(columns=['target', 'split'], errors='ignore'), STEP, prevalence)


def test_suspicions_in_words():
    assert flags([{'target': 'B', 'split': 'valid', 'accuracy': 0.7, 'auc_roc': 0.8}]) == []
    assert (
        flags([{'accuracy': 1.1, 'auc_roc': 0.8}])
        == ['a metric lies outside 0 … 1']
        == flags([{'accuracy': -0.1, 'auc_roc': 0.5}])
    )
    assert flags([{'accuracy': 1.00005, 'auc_roc': 0.8}]) == []
    assert flags([{'target': 'x', 'split': 'Valid', 'accuracy': 0.7, 'auc_roc': 0.97}]) == [
        'x valid: an AUC of 97.0% on held-out data; look for the same patient on both sides'
    ]
    assert flags([{'target': 'x', 'split': 'train', 'accuracy': 0.7, 'auc_roc': 0.99}]) == []
    assert flags([{'target': 'x', 'split': 'validation', 'accuracy': 0.7}]) == []
    assert flags([{'target': 'x', 'split': 'test', 'accuracy': 0.75}], {'x': 0.76}) == [
        'x test: accuracy 75.0% is what calling everyone healthy gives (76.0%)'
    ]
    assert flags([{'target': 'x', 'split': 'test', 'accuracy': 0.74}], {'x': 0.76}) == []
    from ctlab.core.anatomy import PREVALENCE, TARGET_LETTERS

    for name in ('bowel', 'spleen'):
        for called in (name, TARGET_LETTERS[name]):
            assert len(flags([{'target': called, 'split': 'train', 'accuracy': PREVALENCE[name][0]}])) == 1

    def pair(**better):
        return [
            {'target': 'x', 'split': 'train', 'accuracy': 0.7, 'auc_roc': 0.7, 'f1': 0.7},
            {'target': 'x', 'split': 'valid', 'accuracy': 0.7, 'auc_roc': 0.7, 'f1': 0.7} | better,
        ]

    assert flags(pair(accuracy=0.73, f1=0.9)) == ['x: validation beats training by more than 2 points in accuracy, f1']
    assert flags(pair(accuracy=0.9)) == [] and flags(pair(accuracy=0.715, f1=0.715)) == []
    assert flags(pair(accuracy=0.73, f1=0.9) * 2) == [], 'which belongs to which cannot be known'


def test_tables_from_files(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_metrics_table(tmp_path / 'a.csv')
    assert str(error.value) == (
        f'{tmp_path / "a.csv"}: no such file; expected a CSV with columns such as target, split, accuracy, '
        'AUC, F1, precision, recall'
    )
    order = ['recall', 'auc_roc', 'f1', 'precision', 'accuracy']
    (100 * table(order).set_index(['target', 'split'])).round(2).reset_index().to_csv(tmp_path / 'a.csv', index=False)
    read = read_metrics_table(str(tmp_path / 'a.csv'))
    assert read['target'].tolist() == ['B'] * 3 + ['L'] * 3 and read['f1'].map(type).eq(str).all()
    true = corrected_table(read)
    assert list(true.columns) == ['target', 'split', *METRIC_ROLES]
    wanted = table()
    columns = audit_table(read).columns
    assert np.allclose(true[list(METRIC_ROLES)], wanted[list(METRIC_ROLES)]) or columns != list(METRIC_ROLES)
    bare = corrected_table(read[order].iloc[::-1])
    assert list(bare.columns) == list(METRIC_ROLES) and list(bare.index) == list(range(6))


def test_a_report_with_flags_lists_them():
    made = AuditReport(['accuracy', 'f1'], ['accuracy', 'f1'], 0.0, 1.0, pd.DataFrame(), ['one', 'two'])
    assert str(made) == 'The header is consistent with its rows (accuracy, f1).\n- one\n- two' and made.ties == []


def point(share, recall, fpr):
    """Accuracy, precision and recall of an operating point, possible or not."""
    hits, alarms = share * recall, (1 - share) * fpr
    return hits + (1 - share) * (1 - fpr), hits / (hits + alarms), recall


def test_the_limits_of_an_area_by_hand():
    """Accuracy .8, precision .6, recall .5: a share of .24, false alarms 2/19.

    Three rounding steps of .001 blur the share by .001 · 3 · (1 + 1/.6) · (1 + .24/.2) = .0176, the area by .0176/.76.
    """
    low, high = 0.5 * 17 / 19 - 0.0176 / 0.76, 1 - 2 / 19 * 0.5 + 0.0176 / 0.76
    for area, possible in ((low + 1e-6, True), (low - 1e-6, False), (high - 1e-6, True), (high + 1e-6, False)):
        assert audit._auc_possible(0.8, area, 0.6, 0.5, 1e-3) == possible


def test_more_false_alarms_than_there_are_healthy():
    def possible(fpr, area):
        accuracy, precision, recall = point(0.3, 0.8, fpr)
        return audit._auc_possible(accuracy, area, precision, recall, STEP)

    assert possible(1.0025, 0.5), 'within rounding: three steps are 0.0030'
    assert not possible(1.0035, 0.5) and not possible(1.02, 0.5)
    assert possible(1.0025, 0.8027) and not possible(1.0025, 0.8032), 'as with no more than all: 0.8 and the rounding'


def test_shares_near_nobody_and_everybody():
    assert audit._auc_possible(0.999, 0.74, 0.05, 0.5, STEP), 'a share below its own rounding'
    accuracy, precision, recall = point(0.99, 0.9, 0.5)
    assert audit._auc_possible(accuracy, 0.7, precision, recall, 0.01), 'a share within its rounding of one'
    assert audit._auc_possible(0.7, 0.1, 1.0, 0.7, STEP), 'all are ill: any area'
    assert not audit._auc_possible(0.5, 0.5, 1.0, 0.7, STEP), 'more than all are ill'
    for steps, known in ((1.5, False), (2.5, True)):
        tiny = steps * STEP
        for accuracy, precision, recall in ((0.8, tiny, 0.5), (0.8, 0.5, tiny), (1 - tiny, 0.5, 0.5)):
            assert audit._auc_possible(accuracy, 5.0, precision, recall, STEP) != known


def test_rules_at_their_edges():
    good = {'accuracy': 0.8, 'auc_roc': 0.75, 'f1': 0.5455, 'precision': 0.6, 'recall': 0.5}
    assert audit._violations(row(**good | {'auc_roc': 0.3}), METRIC_ROLES, True, STEP) == ((1, 0), (1, 0)), 'too small'
    assert audit._violations(row(**good | {'f1': 0.5457}), METRIC_ROLES, True, STEP)[0] == (0, 0), 'two digits off'
    same = {'accuracy': 0.8, 'auc_roc': 1.0, 'f1': 0.78, 'precision': 0.79}
    assert audit._violations(row(**same, recall=0.8), METRIC_ROLES, False, STEP) == ((1, 1), (0, 0)), 'one is possible'
    assert audit._violations(row(**same, recall=0.8002), METRIC_ROLES, False, STEP) == ((0, 0), (1, 1))


@pytest.mark.parametrize(
    'printed, nearest, other',
    [
        (['precision', 'f1', 'recall'], ['f1', 'precision', 'recall'], ['f1', 'recall', 'precision']),
        (['precision', 'recall', 'f1'], ['f1', 'recall', 'precision'], ['f1', 'precision', 'recall']),
    ],
)
def test_of_orders_alike_the_one_nearest_to_the_printed_is_taken(printed, nearest, other):
    """Precision and recall may change places in F1; neither order is the printed one."""
    cells = [[0.5455, 0.6, 0.5], [0.4444, 0.5, 0.4], [0.6857, 0.6, 0.8]]
    found = audit_table(pd.DataFrame(cells, columns=printed).assign(target='B'))
    assert not found.consistent and found.columns == nearest and found.ties == [other] and found.margin == 0


def test_a_report_counts_rows_not_rules():
    rows = pd.DataFrame({'broken_as_printed': [1, 2, 0], 'broken_as_found': [1, 0, 0]})
    said = str(AuditReport(['f1', 'auc_roc'], ['auc_roc', 'f1'], 9.0, 4.0, rows))
    assert '2 of 3 rows contradict the printed header, 1 the found one' in said


def test_flags_come_from_the_numbers_under_their_true_names():
    frame = table().assign(target='x')
    report = audit_table(frame, {'x': frame['accuracy'].iloc[0]})
    assert any('calling everyone healthy' in f for f in report.flags), 'the prevalence that was given'
