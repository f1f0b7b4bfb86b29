"""Receive a thousand slices of 512 × 512: our node beside DCMTK's storescp and Orthanc.

Each receives from the same sender (DCMTK's storescu), and from 16 senders at a time; the node's memory is measured as
more and more arrive.

    python benchmarks/network.py [slices]
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

os.environ['TCP_NODELAY'] = '1'  # or DCMTK waits 40 ms for TCP's delayed word with every object
ELSEWHERE = os.pathsep.join(d for d in os.environ['PATH'].split(os.pathsep) if Path(d) != Path(sys.executable).parent)


def tool(name):
    return shutil.which(name, path=ELSEWHERE + ':/usr/sbin')


OURS = """import sys, time, threading
from ctlab.network.node import Node
from ctlab.network.store import Store
Node(Store(sys.argv[1], free=0), port=int(sys.argv[2])).start(); time.sleep(3600)"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(300):
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(port)


def memory(process):
    return (
        int(
            next(
                line
                for line in Path(f'/proc/{process.pid}/status').read_text().splitlines()
                if line.startswith('VmRSS')
            ).split()[1]
        )
        / 1024
    )


def servers(root):
    """Name -> command, for a port."""

    def orthanc(port):
        config = root / 'orthanc.json'
        config.write_text(
            json.dumps(
                {
                    'StorageDirectory': str(root / 'orthanc'),
                    'IndexDirectory': str(root / 'orthanc'),
                    'HttpPort': free_port(),
                    'DicomPort': port,
                    'DicomAet': 'ANY',
                    'DicomCheckCalledAet': False,
                }
            )
        )
        return [tool('Orthanc'), str(config)]

    (root / 'scp').mkdir()
    return {
        'storescp (keeps files, no index)': lambda port: [tool('storescp'), '-od', str(root / 'scp'), str(port)],
        'Orthanc (files and index)': orthanc,
        'ctlab node (files flushed, index)': lambda port: [sys.executable, '-c', OURS, str(root / 'ours'), str(port)],
    }


QUIET = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


def send_by_dcmtk(port, *paths):
    """Send files, or a folder after `+sd`, by DCMTK's storescu."""
    target = ('-pdu', '131072', '-aec', 'CTLAB', '127.0.0.1', str(port))
    subprocess.run([tool('storescu'), *target, *map(str, paths)], check=True, **QUIET)


def one_sender(root, n):
    """Send all slices by one storescu to each server in turn, and print the ratios."""
    from clocks import note

    seconds = {}
    for name, command in servers(root).items():
        port = free_port()
        server = subprocess.Popen(command(port), **QUIET)
        try:
            wait_for(port)
            before, start = memory(server), time.perf_counter()
            send_by_dcmtk(port, '+sd', root / 'in')
            took = seconds[name] = time.perf_counter() - start
            grown = f'memory {before:.0f} -> {memory(server):.0f} MB'
            print(f'{name:<36} {took:6.1f} s   {n / took:5.0f} a second   {grown}')
        finally:
            server.terminate()
            server.wait(30)
    ours = seconds['ctlab node (files flushed, index)']
    why = 'every object is flushed to the disk and indexed before it is acknowledged, in Python'
    for name in (n for n in seconds if 'ctlab' not in n):
        note(f'receive {n} slices of 512 x 512', ours, name, seconds[name], reason=why)
    for name, s in seconds.items():
        print(f'    ctlab / {name}: {ours / s:.1f}')


def many_senders(root, files, n, senders=16):
    """Send a sixteenth of the slices by each of sixteen senders at a time, three rounds of new objects."""
    port = free_port()
    server = subprocess.Popen([sys.executable, '-c', OURS, str(root / 'many'), str(port)])
    try:
        wait_for(port)
        print(f'\n{senders} senders at a time, a sixteenth each, {n} in all')
        for k in range(3):
            parts = [files[i::senders] for i in range(senders)]
            if k:
                parts = [fresh(part, root / f'{k}-{i}', f'1.2.{k + 4}') for i, part in enumerate(parts)]
            start = time.perf_counter()
            threads = [threading.Thread(target=send_by_dcmtk, args=(port, *part)) for part in parts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - start
            print(f'    round {k + 1}: {took:5.1f} s, {n / took:.0f} a second, memory {memory(server):.0f} MB')
    finally:
        server.kill()
        server.wait()


def main(n=1000):
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    if not all(map(tool, ('storescu', 'storescp', 'Orthanc'))):
        raise SystemExit("needs Debian's packages dcmtk and orthanc")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as t:
        root, rng = Path(t), np.random.default_rng(0)
        scan = make_volume(rng.integers(-500, 500, (n, 512, 512)).astype(np.int16), (1.0, 0.7, 0.7))
        files = write_series(scan, root / 'in', 'bench', '1.2.3.1', 'plain', {'StudyInstanceUID': '1.2.3'})
        size = sum(f.stat().st_size for f in files) / 1e6
        print(f'{n} slices of 512 x 512, {size:.0f} MB, sent by one storescu\n')
        one_sender(root, n)
        many_senders(root, files, n)


def fresh(files, folder, root_uid):
    """Copy slices as new objects."""
    import pydicom

    folder.mkdir()
    made = []
    for f in files:
        ds = pydicom.dcmread(f)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = root_uid, f'{root_uid}.1'
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f'{root_uid}.{ds.InstanceNumber}'
        ds.save_as(folder / f.name)
        made.append(folder / f.name)
    return made


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
