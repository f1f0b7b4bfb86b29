__version__ = "0.1.0"


def __getattr__(name):
    "`ctlab.view`, `ctlab.view3d` and `ctlab.browse`, loaded when they are first wanted."
    if name not in ('view', 'view3d', 'browse'): raise AttributeError(f'module ctlab has no attribute {name!r}')
    from . import viewer
    return getattr(viewer, name)
