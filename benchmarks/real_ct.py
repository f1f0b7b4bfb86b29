"""How do networks that have seen phantoms only do on a patient? Every finished demo run of a mask study on the real CT of the
public TotalSegmentator tests (30 slices; the masks beside it are that program's own fast-mode result).

    python benchmarks/real_ct.py [folder for real-ct.csv]
"""
import sys
from pathlib import Path
import pandas as pd


def main():
    from ctlab.cases import Case, read_case
    from ctlab.segment import load_run
    from ctlab.segmentation import score_case, segment_scan
    from ctlab.settings import Settings, real_data
    from ctlab.volume import Volume
    if (real := real_data()) is None: raise SystemExit('no real scan at hand; set CTLAB_REAL_DATA to a folder that holds totalsegmentator/')
    rows = []
    for study, structure in (('spleen', 'spleen'), ('liver2d', 'liver'), ('liver3d', 'liver')):
        for folder in sorted((Settings().out/study/'demo').glob('fold*')):
            if not (folder/'config.json').exists(): continue
            net, plan, *_ = load_run(folder)
            scan, truth = read_case(Case('real', real/'example_ct_sm.nii.gz', {structure: real/'example_seg'/f'{structure}.nii.gz'}), (structure,))
            found = segment_scan(net, scan, plan)
            rows += [{'study': study, 'fold': folder.name} | r for r in score_case(Volume((found.array > 0).astype('uint8'), found.affine), truth, (structure,))]
    table = pd.DataFrame(rows).round(3)
    print('trained on phantoms, applied to a real CT\n')
    print(table.to_string(index=False))
    if len(sys.argv) > 1: table.to_csv(Path(sys.argv[1])/'real-ct.csv', index=False)


if __name__ == '__main__': main()
