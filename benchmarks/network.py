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


def main(n=1000):
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    if not all(map(tool, ('storescu', 'storescp', 'Orthanc'))):
        raise SystemExit("needs Debian's packages dcmtk and orthanc")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as t:
        root, rng = Path(t), np.random.default_rng(0)
        pixels = rng.integers(-500, 500, (n, 512, 512)).astype(np.int16)
        files = write_series(
            make_volume(pixels, (1.0, 0.7, 0.7)),
            root / 'in',
            'bench',
            '1.2.3.1',
            'plain',
            {'StudyInstanceUID': '1.2.3'},
        )
        print(f'{n} slices of 512 x 512, {sum(f.stat().st_size for f in files) / 1e6:.0f} MB, sent by one storescu\n')
        seconds = {}
        for name, command in servers(root).items():
            port = free_port()
            server = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_for(port)
                before, start = memory(server), time.perf_counter()
                subprocess.run(
                    [
                        tool('storescu'),
                        '-pdu',
                        '131072',
                        '-aec',
                        'CTLAB',
                        '127.0.0.1',
                        str(port),
                        '+sd',
                        str(root / 'in'),
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                seconds[name] = time.perf_counter() - start
                print(
                    f'{name:<36} {seconds[name]:6.1f} s   {n / seconds[name]:5.0f} a second   '
                    f'memory {before:.0f} -> {memory(server):.0f} MB'
                )
            finally:
                server.terminate()
                server.wait(30)
        ours = seconds['ctlab node (files flushed, index)']
        for name, s in seconds.items():
            print(f'    ctlab / {name}: {ours / s:.1f}')
        port = free_port()
        server = subprocess.Popen([sys.executable, '-c', OURS, str(root / 'many'), str(port)])
        try:
            wait_for(port)
            print(f'\n16 senders at a time, a sixteenth each, {n} in all')
            for round_ in range(3):
                parts = (
                    [files[k::16] for k in range(16)]
                    if round_ == 0
                    else [fresh(files[k::16], root / f'{round_}-{k}', f'1.2.{round_ + 4}') for k in range(16)]
                )
                start = time.perf_counter()
                threads = [
                    threading.Thread(
                        target=lambda p=p: subprocess.run(
                            [tool('storescu'), '-pdu', '131072', '-aec', 'CTLAB', '127.0.0.1', str(port), *map(str, p)],
                            check=True,
                            stderr=subprocess.DEVNULL,
                        )
                    )
                    for p in parts
                ]
                for th in threads:
                    th.start()
                for th in threads:
                    th.join()
                took = time.perf_counter() - start
                print(f'    round {round_ + 1}: {took:5.1f} s, {n / took:.0f} a second, memory {memory(server):.0f} MB')
        finally:
            server.kill()
            server.wait()


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
