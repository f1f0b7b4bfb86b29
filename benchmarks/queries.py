"""Ask and fetch by DICOMweb: our server beside Orthanc's on the same objects, and ours on an index of a million.

    python benchmarks/queries.py [instances]

The million exists in the index only: what is asked never opens a file.
"""

import functools
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
from clocks import note
from network import free_port, memory, orthanc, running, send_by_dcmtk, tool

from ctlab.network.dicomweb import DicomWebServer
from ctlab.network.node import Node
from ctlab.network.store import Store

PLUGIN = '/usr/share/orthanc/plugins/libOrthancDicomWeb.so'
WHY = 'the web server is in Python'
AIM = 50.0  # ms of an answer on the million
STUDIES, SLICES = 40, 50  # of the archive that both hold


class Question(NamedTuple):
    """A question of a viewer or a worklist."""

    name: str
    path: str


QUESTIONS = [
    Question('list of studies, first 100', 'studies?limit=100'),
    Question('studies of a time', 'studies?StudyDate=20120101-20121231&limit=100'),
    Question('studies by name', 'studies?PatientName=n7*&limit=100'),
    Question('studies by accession number', 'studies?AccessionNumber=A17'),
    Question('series of a study', 'studies/1.2.17/series'),
    Question('instances of a series', 'studies/1.2.17/series/{series}/instances?limit=100'),
    Question('instances by number', 'instances?InstanceNumber=7&limit=100'),
    Question('instances, the last page', 'instances?limit=100&offset={last}'),
]


def fetched(url, times=7):
    """Seconds of a request (the median), and how many bytes came."""
    seconds, size = [], 0
    for _ in range(times):
        start = time.perf_counter()
        with urllib.request.urlopen(url, timeout=600) as answer:
            size = len(answer.read())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), size


def fill_index(store, n, per_series=250):
    """Enter n instances that are nowhere: patients of two studies of two series each."""

    def text(**attributes):
        return json.dumps(attributes)

    with store.writing() as db:
        for k in range(max(1, n // per_series)):
            study = k // 2
            if k % 4 == 0:
                patient = text(PatientName=f'N{k}^Anna', PatientID=f'P{k}', PatientSex='F')
                db.execute('INSERT INTO patient VALUES (?, ?, ?)', (k // 4, f'P{k}', patient))
            if k % 2 == 0:
                date = f'20{10 + study % 15}{1 + study % 12:02}{1 + study % 28:02}'
                about = text(StudyInstanceUID=f'1.2.{study}', StudyDate=date, AccessionNumber=f'A{study}')
                db.execute('INSERT INTO study VALUES (?, ?, ?, 0)', (f'1.2.{study}', k // 4, about))
            about = text(SeriesInstanceUID=f'1.3.{k}', Modality='CT', SeriesNumber=str(k % 2))
            db.execute(
                'INSERT INTO series VALUES (?, ?, ?, ?, ?)', (k, f'1.3.{k}', f'1.2.{study}', 'train_images', about)
            )
            db.executemany(
                'INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?)', map(functools.partial(_row, k), range(per_series))
            )


def _row(series, number):
    uid = f'1.4.{series}.{number}'
    about = {'SOPInstanceUID': uid, 'SOPClassUID': '1.2.840.10008.5.1.4.1.1.2', 'InstanceNumber': str(number + 1)}
    path = f'train_images/{series // 4}/{series}/{number + 1}.dcm'
    return uid, series, path, '1.2.840.10008.1.2.1', 526_000, json.dumps(about | {'Rows': '512'})


def million(root, n):
    """Answer on an index of n instances."""
    store = Store(root / 'million', free=0)
    start = time.perf_counter()
    fill_index(store, n)
    print(f'{n} instances in the index ({time.perf_counter() - start:.0f} s)\n')
    with DicomWebServer(store, port=0, token='') as web:
        for question in QUESTIONS:
            path = question.path.format(last=n - 100, series='1.3.34')
            seconds, size = fetched(f'{web.url}/{path}')
            print(f'    {question.name:<30} {1000 * seconds:8.1f} ms   {size / 1000:8.1f} kB')
            note(f'{question.name}, {n} instances', 1000 * seconds, 'aim', AIM, 'ms')
    store.close()


def archive(root):
    """Write the objects that both hold: studies of one small series, and one of full size."""
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    rng = np.random.default_rng(0)
    for k in range(STUDIES):
        scan = make_volume(rng.integers(0, 99, (SLICES, 16, 16)).astype(np.int16), (1.0, 1.0, 1.0))
        about = {'StudyInstanceUID': f'1.2.{k}', 'StudyDate': f'2012{1 + k % 12:02}10', 'AccessionNumber': f'A{k}'}
        write_series(scan, root / 'in' / f'{k}', f'n{k}', f'1.3.{k}', 'plain', about)
    scan = make_volume(rng.integers(0, 4000, (200, 512, 512)).astype(np.int16), (1.0, 1.0, 1.0))
    write_series(scan, root / 'in' / 'large', 'large', '1.3.900', 'plain', {'StudyInstanceUID': '1.2.900'})


def beside_orthanc(root):
    """Ask both the same questions, and fetch a series from both."""
    archive(root)
    store, web = Store(root / 'ours', free=0), free_port()
    with (
        Node(store, port=0) as node,
        running(orthanc(root, web, Plugins=[PLUGIN], AuthenticationEnabled=False)) as (server, port),
    ):
        for at in (node.port, port):
            send_by_dcmtk(at, '+sd', '+r', root / 'in')
        print(f'\n{STUDIES + 1} studies of {SLICES * STUDIES + 200} objects; Orthanc takes {memory(server):.0f} MB')
        with DicomWebServer(store, port=0, token='') as ours:
            print(f'    {"":<30} {"ours":>8} {"Orthanc":>8} ms')
            wado = Question('a series of 200 slices, 105 MB', 'studies/1.2.900/series/1.3.900')
            for question in [*QUESTIONS, wado]:
                path = question.path.format(last=STUDIES * SLICES + 100, series='1.3.17')
                (us, _), (them, _) = fetched(f'{ours.url}/{path}'), fetched(f'http://127.0.0.1:{web}/dicom-web/{path}')
                print(f'    {question.name:<30} {1000 * us:8.1f} {1000 * them:8.1f}   {them / us:.1f}')
                note(f'DICOMweb: {question.name}', 1000 * us, 'Orthanc', 1000 * them, 'ms', reason=WHY)
    store.close()


def main(n=1_000_000):
    if not (all(map(tool, ('storescu', 'Orthanc'))) and Path(PLUGIN).exists()):
        raise SystemExit("needs Debian's packages dcmtk, orthanc and orthanc-dicomweb")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as t:
        million(Path(t), n)
        beside_orthanc(Path(t))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
