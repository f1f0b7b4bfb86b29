"""Packaging for ctlab; every value comes from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    license='Apache-2.0',
    description=cfg['description'],
    keywords=cfg['keywords'].split(),
    author=cfg['author'],
    long_description=(here / 'README.md').read_text(encoding='utf-8') if (here / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=['ctlab', 'ctlab.*']),
    include_package_data=True,
    package_data={
        'ctlab': ['*.pyi', 'py.typed'],
        'ctlab.reporting': ['*.js', 'niivue/*'],
        'ctlab.interfaces': ['*.js'],
        'ctlab.organs': ['*.safetensors', '*.md'],
    },
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg['requirements'].split(),
    extras_require={n: cfg[f'{n}_requirements'].split() for n in ('train', 'far', 'node', 'app', 'site')},
    entry_points={
        'console_scripts': cfg['console_scripts'].split('\n'),
        'nbdev': [f'{cfg["lib_name"]}={cfg["lib_path"]}._modidx:d'],
    },
    zip_safe=False,
)
