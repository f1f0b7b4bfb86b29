"""A pytest plugin: every cell of a chapter that is not exported is a test of the module that the chapter exports.

A cell starts from the names that the cells above it left when they ran undisturbed, so a cell is run alone and again
without the others: that is what makes mutation testing of notebooks a matter of minutes (`make mutants`).
"""

import importlib
import json
import os
import re

import pytest

WHOLE = ('00_store',)  # whose cells hand a folder on to each other: one test each
_SNAPSHOTS = {}  # notebook -> [(index, code, names before)]


def pytest_collect_file(file_path, parent):
    if file_path.suffix == '.ipynb':
        return Chapter.from_parent(parent, path=file_path)


def _cells(path):
    """Read (module, [(index, code)]) of a chapter: what is run and not exported."""
    notebook, module, cells = json.loads(path.read_text()), None, []
    for k, cell in enumerate(notebook['cells']):
        code = ''.join(cell['source'])
        if cell['cell_type'] != 'code':
            continue
        if found := re.search(r'#\|\s*default_exp\s+([\w.]+)', code):
            module = found[1]
            continue
        if re.search(r'#\|\s*(export|exporti|eval:\s*false)\b', code) or re.search(r'^\s*[%!]', code, re.M):
            continue
        if 'nbdev_export' in code or not code.strip():
            continue
        cells.append((k, code))
    return module, cells


def _snapshots(path):
    """Run the chapter once per process, without any mutant, and keep the names that each cell starts from."""
    if path in _SNAPSHOTS:
        return _SNAPSHOTS[path]
    import matplotlib

    matplotlib.use('Agg')
    active = os.environ.pop('MUTANT_UNDER_TEST', None)
    module, cells = _cells(path)
    names = dict(vars(importlib.import_module(f'ctlab.{module}'))) if module else {}
    names |= {'__name__': '__main__', 'display': lambda *shown: None}
    names.pop('__file__', None)
    made = []
    try:
        for k, code in cells:
            made.append((k, code, dict(names)))
            exec(compile(code, f'{path.name}[{k}]', 'exec'), names)
    finally:
        if active is not None:
            os.environ['MUTANT_UNDER_TEST'] = active
    _SNAPSHOTS[path] = made
    return made


class Chapter(pytest.File):
    def collect(self):
        cells = _snapshots(self.path)
        if self.path.stem in WHOLE:
            cells = [(0, '\n'.join(code for _, code, _ in cells), cells[0][2])]
        for k, code, names in cells:
            yield Cell.from_parent(self, name=f'cell{k}', code=code, names=names)


class Cell(pytest.Item):
    def __init__(self, code, names, **options):
        super().__init__(**options)
        self.code, self.names = code, names

    def runtest(self):
        import matplotlib.pyplot as plt

        try:
            exec(compile(self.code, f'{self.path.name}[{self.name}]', 'exec'), dict(self.names))
        finally:
            plt.close('all')

    def reportinfo(self):
        return self.path, 0, self.name
