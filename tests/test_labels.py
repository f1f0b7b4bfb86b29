"""Labels and folds of a cohort: every contradiction is seen and named, every patient has one place."""

import numpy as np
import pandas as pd
import pytest

from ctlab.cohort.labels import check_folds, check_labels, class_labels, cohort_folds, make_folds, read_labels
from ctlab.core.anatomy import LABEL_COLUMNS, TARGETS
from ctlab.core.settings import Settings


def table(n=40, seed=0):
    """Patients with random answers, none of which contradicts another."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(n):
        row = {'patient_id': 1000 + 7 * k} | dict.fromkeys(LABEL_COLUMNS, 0)
        for target, grades in TARGETS.items():
            row[f'{target}_{rng.choice(grades, p=[0.6] + [0.4 / (len(grades) - 1)] * (len(grades) - 1))}'] = 1
        rows.append(row | {'any_injury': int(not all(row[f'{t}_healthy'] for t in TARGETS))})
    return pd.DataFrame(rows)


def labels(**options):
    return table(**options).set_index('patient_id')


def refused(frame, words):
    with pytest.raises(ValueError) as error:
        check_labels(frame)
    assert str(error.value) == words


def test_a_sound_table_passes_and_each_contradiction_is_named():
    sound = labels()
    check_labels(sound)
    refused(sound.drop(columns=['liver_low', 'any_injury']), 'the label table lacks the columns liver_low, any_injury')
    refused(pd.concat([sound, sound.iloc[[2, 4]]]), 'more than one row for 2 patients, first: 1014, 1028')
    for value in (2, -1, 0.5, np.nan):
        wrong = sound.astype(float)
        wrong.loc[1021, 'kidney_high'] = value
        refused(wrong, 'values other than 0 and 1 for 1 patients, first: 1021')
    for target, grades in TARGETS.items():
        for answers in (0, 1):
            wrong = sound.copy()
            wrong.loc[[1000, 1007], [f'{target}_{g}' for g in grades]] = answers
            refused(wrong, f'not exactly one answer on the {target} for 2 patients, first: 1000, 1007')
    wrong = sound.assign(any_injury=1 - sound['any_injury'])
    refused(wrong, 'any_injury contradicts the five answers for 40 patients, first: 1000, 1007, 1014, 1021, 1028')


def test_grades_are_the_numbers_of_the_answers():
    frame = labels()
    graded = class_labels(frame)
    assert list(graded.columns) == list(TARGETS) and graded.index.equals(frame.index)
    for target, grades in TARGETS.items():
        for number, name in enumerate(grades):
            assert ((graded[target] == number) == (frame[f'{target}_{name}'] == 1)).all()


def test_tables_are_found_by_their_names(tmp_path):
    for words, there in (
        ('expected the RSNA 2023 layout', None),
        (
            'fill in labels_to_fill.csv and save it as train.csv; ctlab predict, segment and view need no labels',
            'labels_to_fill.csv',
        ),
    ):
        if there:
            (tmp_path / there).touch()
        with pytest.raises(FileNotFoundError) as error:
            read_labels(tmp_path)
        assert str(error.value) == f'{tmp_path}: neither train_2024.csv nor train.csv is here; {words}'
    table(n=5).to_csv(tmp_path / 'train.csv', index=False)
    assert len(read_labels(tmp_path)) == 5
    table(n=7).assign(more=1).to_csv(tmp_path / 'train_2024.csv', index=False)
    read = read_labels(str(tmp_path))
    assert len(read) == 7 and list(read.columns) == [*LABEL_COLUMNS, 'any_injury'] and read.index.name == 'patient_id'
    assert (read.dtypes == np.int8).all() and read.equals(labels(n=7).astype(np.int8))
    assert len(read_labels(tmp_path / 'train.csv')) == 5, 'a table by its own name'
    table(n=5).rename(columns={'patient_id': 'patient'}).to_csv(tmp_path / 'other.csv', index=False)
    with pytest.raises(ValueError) as error:
        read_labels(tmp_path / 'other.csv')
    assert (
        str(error.value)
        == f'{tmp_path / "other.csv"}: no column patient_id; found patient, {", ".join(LABEL_COLUMNS[:7])}'
    )
    table(n=5).drop(columns='any_injury').to_csv(tmp_path / 'wrong.csv', index=False)
    with pytest.raises(ValueError) as error:
        read_labels(tmp_path / 'wrong.csv')
    assert str(error.value) == f'{tmp_path / "wrong.csv"}: the label table lacks the columns any_injury'


def test_folds_are_even_stratified_and_the_same_again():
    frame = labels(n=80, seed=3)
    folds = make_folds(frame)
    assert folds.name == 'fold' and folds.index.equals(frame.index) and set(folds) == {0, 1, 2, 3}
    assert folds.value_counts().max() - folds.value_counts().min() <= 4
    injured = frame['any_injury'].groupby(folds).mean()
    assert injured.max() - injured.min() < 0.12
    shuffled = make_folds(frame.sample(frac=1, random_state=1))
    assert shuffled.sort_index().equals(folds), 'the order of the rows does not matter'
    assert make_folds(frame, 4, 0).equals(folds) and not make_folds(frame, 4, 1).equals(folds)
    assert make_folds(frame, 5).nunique() == 5
    assert make_folds(frame.head(4), 4).nunique() == 4
    with pytest.raises(ValueError, match='^3 patients cannot fill 4 folds$'):
        make_folds(frame.head(3), 4)
    high = frame[[c for c in LABEL_COLUMNS if c.endswith('_high')]].sum(axis=1).clip(upper=1)
    assert high.groupby(folds).sum().min() >= high.sum() // 4 - 3, 'rare answers are in every fold'


def test_a_patient_on_both_sides_is_an_error():
    check_folds([1, 2, 3], [4, 5])
    with pytest.raises(ValueError) as error:
        check_folds(range(10), range(4, 20))
    assert str(error.value) == (
        '6 patients are on both sides of the split, among them [4, 5, 6, 7, 8]; split by patient'
    )


def test_folds_are_stored_once_and_made_again_when_they_do_not_fit(tmp_path):
    frame, settings = labels(), Settings(data_root=str(tmp_path / 'cohort'), work_dir=str(tmp_path / 'work'), seed=2)
    made = cohort_folds(settings, frame)
    kept = [p for p in (tmp_path / 'work' / 'folds').iterdir() if p.suffix == '.csv']
    assert len(kept) == 1 and 'cohort' in kept[0].name and kept[0].name.endswith('-4-2.csv')
    assert made.equals(make_folds(frame, 4, 2)) and pd.read_csv(kept[0]).columns.tolist() == ['patient_id', 'fold']
    other = (made + 1) % 4
    kept[0].write_text(other.to_csv())
    assert cohort_folds(settings, frame).to_dict() == other.to_dict(), 'what is stored is used'
    for wrong in (
        other.drop(index=1000),
        other.where(other != 0, 4),
        other.where(other != 0, -1),
        pd.concat([other, pd.Series({1: 0}, name='fold').rename_axis('patient_id')]),
    ):
        kept[0].write_text(wrong.to_csv())
        assert cohort_folds(settings, frame).equals(made) and pd.read_csv(kept[0])['fold'].tolist() == made.tolist()
