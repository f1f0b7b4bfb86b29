"""Gather what the benchmarks measured in one table: each clock, ours, the best peer, their ratio, and the floor.

    make bench                                        run those of minutes, and print the table
    python benchmarks/clocks.py [--keep FOLDER]       print it again, or keep it as FOLDER/clocks.csv

A benchmark notes its clocks with `note` while CTLAB_CLOCKS names a file. A ratio below 1 means that the peer is faster;
such a row needs a reason, or the table is refused.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

FILE = Path(__file__).parent.parent / 'work' / 'clocks.jsonl'


class Clock(NamedTuple):
    """One measurement of ours beside a peer's, in the same run."""

    clock: str  # what is done, to how much
    ours: float
    peer: str
    theirs: float
    unit: str = 's'
    floor: float | None = None  # what nobody can be faster than
    reason: str = ''  # why the peer is faster, where it can be


def note(*clock, **rest):
    """Remember a measurement, where one is asked for."""
    path = os.environ.get('CTLAB_CLOCKS')
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, 'a') as file:
            file.write(json.dumps(Clock(*clock, **rest)._asdict()) + '\n')


def table(path=FILE):
    """Read the clocks; the last measurement of each counts."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    found = pd.DataFrame(rows).drop_duplicates(['clock', 'peer'], keep='last').reset_index(drop=True)
    found.insert(5, 'ratio', found['theirs'] / found['ours'])
    unexplained = found[(found['ratio'] < 1) & (found['reason'] == '')]
    if len(unexplained):
        raise SystemExit(f'slower than the peer without a reason: {", ".join(unexplained["clock"])}')
    found.loc[found['ratio'] >= 1, 'reason'] = ''
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--file', type=Path, default=FILE)
    parser.add_argument('--keep', type=Path, help='a folder for clocks.csv')
    asked = parser.parse_args()
    if not asked.file.exists():
        sys.exit(f'{asked.file}: nothing was measured yet; run make bench')
    found = table(asked.file).round(3)
    print(found.fillna('').to_string(index=False))
    if asked.keep:
        found.to_csv(asked.keep / 'clocks.csv', index=False)


if __name__ == '__main__':
    main()
