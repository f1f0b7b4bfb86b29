"""The order of the packages, and the front door."""

import ast
import importlib
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

# the order in which data flows
PACKAGES = (
    'core',
    'scans',
    'phantoms',
    'cohort',
    'learn',
    'judge',
    'reporting',
    'organs',
    'trauma',
    'network',
    'interfaces',
)
MODULES = [p for p in sorted((ROOT / 'ctlab').glob('*/*.py')) if p.name != '__init__.py']


def imports(path):
    """(package, module) of everything that a module takes from the package, wherever in it the import stands."""
    package = path.parent.name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.startswith('ctlab.')]
            yield from (tuple((name.split('.') + [''])[1:3]) for name in ours)
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = (node.module or '').split('.')
        if node.level == 1:
            parts = ['ctlab', package, *parts]
        elif node.level == 2:
            parts = ['ctlab', *parts]
        elif parts[0] != 'ctlab':
            continue
        parts = [p for p in parts if p]
        if len(parts) >= 3:
            yield parts[1], parts[2]
        else:
            for alias in node.names:
                yield ((parts[1], alias.name) if len(parts) == 2 else (alias.name, ''))


def test_the_packages_are_listed_and_described():
    found = {p.name for p in (ROOT / 'ctlab').iterdir() if p.is_dir() and p.name != '__pycache__'}
    assert found == set(PACKAGES) and len(MODULES) > 40
    for package in PACKAGES:
        text = ast.get_docstring(ast.parse((ROOT / 'ctlab' / package / '__init__.py').read_text()))
        assert 'Input:' in text and 'Output:' in text and '\n' not in text, (
            f'{package}: one line names its input and its output'
        )


def test_imports_only_go_down():
    up = [
        (f'{p.parent.name}.{p.stem}', '.'.join(to))
        for p in MODULES
        for to in imports(p)
        if to[0] in PACKAGES and PACKAGES.index(to[0]) > PACKAGES.index(p.parent.name)
    ]
    assert not up, f'these import from a package above them: {up}'


def test_no_circle_within_a_room():
    arrows = {
        f'{p.parent.name}.{p.stem}': {'.'.join(to) for to in imports(p)} - {f'{p.parent.name}.{p.stem}'}
        for p in MODULES
    }
    while arrows:
        free = [m for m, to in arrows.items() if not to & set(arrows)]
        assert free, f'a circle among {sorted(arrows)}'
        for m in free:
            del arrows[m]


def test_names_are_apart():
    stems = [p.stem for p in MODULES]
    assert len(set(stems)) == len(stems), 'no two modules of one name, in whatever package'
    assert not {s + 's' for s in stems} & set(stems), 'no module is the plural of another'
    books = [p.stem for p in (ROOT / 'nbs').rglob('[0-9]*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    assert len(set(books)) == len(books) and all(b[:2].isdigit() and b[2] == '_' for b in books)


def test_every_module_comes_from_a_chapter_of_its_room():
    for path in (ROOT / 'nbs' / 'lib').glob('*/*.ipynb'):
        if '.ipynb_checkpoints' in path.parts:
            continue
        text = ''.join(''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code')
        if 'default_exp' in text:
            assert f'default_exp {path.parent.name}.{path.stem[3:]}' in text, path


def test_the_front_door():
    code = (
        'import sys; import ctlab; '
        'print(sorted(m for m in sys.modules if m.startswith("ctlab")), sorted(ctlab.__all__))'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("['ctlab'] "), 'nothing is loaded before it is wanted'
    import ctlab

    assert set(ctlab.__all__) <= set(dir(ctlab))
    for name in ctlab.__all__:
        found = getattr(ctlab, name)
        assert callable(found) and found.__doc__
        assert name == 'judge' or (  # a package that can be called
            getattr(importlib.import_module(found.__module__), found.__name__) is found
        )
    stub = ast.parse((ROOT / 'ctlab' / '__init__.pyi').read_text())
    typed = {a.asname: (n.module, a.name) for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert set(typed) == set(ctlab.__all__), 'editors see what there is'
    for name, (module, inner) in typed.items():
        given = getattr(importlib.import_module(f'ctlab.{module}'), inner)
        assert name == 'judge' or given is getattr(ctlab, name)
    with pytest.raises(AttributeError):
        _ = ctlab.nothing


def test_the_diagram_is_up_to_date():
    from ctlab.reporting.site import draw_package_diagram

    assert (ROOT / 'reports' / 'reference' / 'packages.svg').read_text() == draw_package_diagram(ROOT), (
        'imports have changed: make packages'
    )


def test_every_file_of_the_guide_is_there():
    import re

    text = (ROOT / 'CONTRIBUTING.md').read_text()
    named = set(re.findall(r'`(nbs/lib/\w+/\d\w+\.ipynb)`', text))
    assert len(named) >= 10 and all((ROOT / n).is_file() for n in named)


def notebooks():
    """(path, cells) of all notebooks."""
    for path in (ROOT / 'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' not in path.parts:
            yield path, json.loads(path.read_text())['cells']


def cells(kind):
    """(notebook, source) of all cells of a kind."""
    for path, found in notebooks():
        for cell in found:
            if cell['cell_type'] == kind:
                yield path, ''.join(cell['source'])


def test_lines_end_by_column_120():
    """In notebooks, tests and benchmarks; modules are made from notebooks."""
    scripts = [(p, p.read_text()) for folder in ('tests', 'benchmarks') for p in (ROOT / folder).glob('*.py')]
    long = [
        f'{p.name}: {line}' for p, text in (*scripts, *cells('code')) for line in text.split('\n') if len(line) > 120
    ]
    assert not long, '\n'.join(long)


def test_links_between_chapters_lead_somewhere():
    lost = [
        f'{path.name}: {link}'
        for path, text in cells('markdown')
        for link in re.findall(r'\]\(([^)#\s]+\.ipynb)', text)
        if not (path.parent / link).exists()
    ]
    assert not lost, '\n'.join(lost)


def test_the_index_names_every_chapter():
    text = (ROOT / 'nbs' / 'index.ipynb').read_text()
    lost = [p.name for p in (ROOT / 'nbs').glob('[0-9]*.ipynb') if f']({p.name})' not in text]
    assert not lost, '\n'.join(lost)


def test_no_picture_stands_twice_in_a_chapter():
    """Check stored pictures and run figures: a cell's value and the inline backend must not both show one."""
    figures = {
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(r, ast.Return) and isinstance(r.value, ast.Name) and r.value.id == 'figure'
            for r in ast.walk(node)
        )
    }
    assert len(figures) > 5
    for path, found in notebooks():
        seen = set()
        for cell in found:
            for output in cell.get('outputs', ()):
                picture = ''.join(output.get('data', {}).get('image/png', ''))
                assert not picture or picture not in seen, f'{path.name}: a picture is stored twice'
                seen.add(picture)
            code = ''.join(cell['source'])
            if cell['cell_type'] != 'code' or code.lstrip().startswith(('%', '!')):
                continue
            last = (ast.parse(re.sub(r'^[%!].*', '', code, flags=re.M)).body or [None])[-1]
            if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)):
                continue
            name = getattr(last.value.func, 'id', getattr(last.value.func, 'attr', ''))
            assert name not in figures or code.rstrip().endswith(';'), f'{path.name}: {name}(…) needs a ; behind it'


BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)


def depth(node, level=0):
    """How many blocks stand in each other; an `elif` is on the level of its `if`, an inner function on its own."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        alike = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        deepest = max(deepest, depth(child, level + (isinstance(child, BLOCKS) and not alike)))
    return deepest


@pytest.mark.parametrize('path', [*MODULES, *sorted((ROOT / 'tests').glob('*.py'))], ids=lambda p: p.stem)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1
            assert lines <= 40 and depth(node) <= 3, f'{node.name}: {lines} lines, {depth(node)} levels; split it'


def requirements_of(names, seen):
    """Collect a package's requirements and theirs, as installed here and without extras."""
    from importlib import metadata

    from packaging.requirements import Requirement

    for name in names:
        key = re.sub(r'[-_.]+', '-', name).lower()
        if key in seen:
            continue
        try:
            needed = [Requirement(r) for r in metadata.requires(key) or ()]
        except metadata.PackageNotFoundError:
            continue
        seen.add(key)
        requirements_of([r.name for r in needed if r.marker is None or r.marker.evaluate({'extra': ''})], seen)
    return seen


def test_nothing_needed_at_run_time_is_under_the_gpl():
    """The lesser licence lets others link to a library; the GPL itself does not go with Apache-2.0."""
    from configparser import ConfigParser
    from importlib import metadata

    from packaging.requirements import Requirement

    config = ConfigParser(delimiters=['='], interpolation=None)
    config.read(ROOT / 'settings.ini')
    kinds = ('requirements', *(f'{n}_requirements' for n in ('train', 'far', 'node', 'app')))
    wanted = [Requirement(w).name for kind in kinds for w in config['DEFAULT'][kind].split()]
    found = requirements_of(wanted, set())
    assert len(found) > 80 and 'pydicom' in found and 'pylibjpeg-libjpeg' not in found
    for name in found:
        facts = metadata.metadata(name)
        terms = [c for c in facts.get_all('Classifier') or () if c.startswith('License ::')]
        terms += [facts.get('License-Expression') or '', (facts.get('License') or '')[:60]]
        strict = [t for t in terms if re.search(r'\b(A?GPL|General Public)', t) and not re.search('LGPL|Lesser', t)]
        assert not strict, f'{name}: {strict}'


def _shadowed(defined):
    """List the methods of a class in whose name it keeps something else."""
    methods = {f.name for f in defined.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
    stored = [n for n in ast.walk(defined) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    return {n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == 'self'} & methods


def test_no_attribute_hides_a_method():
    """Find buttons that have the name of what they do: a press would call the button."""
    classes = [(p, c) for p in MODULES for c in ast.walk(ast.parse(p.read_text())) if isinstance(c, ast.ClassDef)]
    assert not [f'{p.stem}.{c.name}.{name}' for p, c in classes for name in _shadowed(c) if not name.startswith('_')]
    assert _shadowed(ast.parse('class A:\n def f(self):\n  self.f = 1').body[0]) == {'f'}
