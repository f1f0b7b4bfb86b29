"""Apply networks trained on phantoms to a patient.

Every finished demo run of a segmentation study on the CT of the public TotalSegmentator tests (30 slices; the masks
beside it are that program's own fast-mode result).

    python benchmarks/real_ct.py [folder for real-ct.csv]
"""

import sys
from pathlib import Path

import pandas as pd


def main():
    from ctlab.core.settings import Settings, real_data_folder
    from ctlab.organs.segment import load_segmentation_run
    from ctlab.organs.segmentation_study import evaluate_on_real_ct

    if real_data_folder() is None:
        raise SystemExit('no real scan at hand; set CTLAB_REAL_DATA to a folder that holds totalsegmentator/')
    rows = []
    for study, structure in (('spleen', 'spleen'), ('liver2d', 'liver'), ('liver3d', 'liver')):
        for folder in sorted((Settings().out / study / 'demo').glob('fold*')):
            if not (folder / 'config.json').exists():
                continue
            net, plan, *_ = load_segmentation_run(folder)
            rows.append(evaluate_on_real_ct(net, plan, structure)['scores'].assign(study=study, fold=folder.name))
    table = pd.concat(rows).round(3)[['study', 'fold', *rows[0].columns[:-2]]]
    print('trained on phantoms, applied to a real CT\n')
    print(table.to_string(index=False))
    if len(sys.argv) > 1:
        table.to_csv(Path(sys.argv[1]) / 'real-ct.csv', index=False)


if __name__ == '__main__':
    main()
