"""A lab for computed tomography. The names below are loaded on first use; everything else is in eleven packages.

>>> import ctlab
>>> scan = ctlab.read('series/')        # DICOM, NIfTI, or the masks written by `ctlab segment`
>>> ctlab.view(scan)                    # three planes, in a notebook
>>> ctlab.segment('series/', 'out', model='reports/runs/spleen/demo/fold0')
"""
__version__ = "0.3.0"

_HOMES = {'Volume': 'scans.volume', 'read': 'scans.io', 'write': 'scans.io', 'view': 'reporting.viewer', 'view3d': 'reporting.viewer', 'browse': 'reporting.viewer',
          'segment': 'organs.segment', 'predict': 'trauma.predict', 'prepare': 'cohort.stacks', 'audit': 'judge.audit'}
__all__ = [*_HOMES, 'judge']


def __getattr__(name):
    if name == 'judge':  # a package that can be called
        from importlib import import_module
        return import_module('ctlab.judge')
    if name not in _HOMES: raise AttributeError(f'module ctlab has no attribute {name!r}')
    from importlib import import_module
    found = getattr(import_module(f'{__name__}.{_HOMES[name]}'), {'audit': 'audit_table', 'predict': 'predict_scans'}.get(name, name))
    globals()[name] = found  # the next look-up is a plain one
    return found


def __dir__(): return sorted([*globals(), *__all__])
