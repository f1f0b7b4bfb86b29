"""Receive a thousand slices of 512 × 512: our node beside DCMTK's storescp and Orthanc.

Each receives from the same sender (DCMTK's storescu), and from 16 senders at a time; the node's memory is measured as
more and more arrive.

    python benchmarks/network.py [slices]
"""

import contextlib
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


OUR_NAME = 'ctlab node (files flushed, index)'


def orthanc(root, web, **more):
    """Build the command that starts Orthanc, for a port of DICOM."""

    def command(port):
        config = {
            'StorageDirectory': str(root / 'orthanc'),
            'IndexDirectory': str(root / 'orthanc'),
            'HttpPort': web,
            'DicomPort': port,
            'DicomAet': 'ANY',
            'DicomCheckCalledAet': False,
        }
        (path := root / 'orthanc.json').write_text(json.dumps(config | more))
        return [tool('Orthanc'), str(path)]

    return command


def servers(root):
    """Name -> command, for a port."""
    (root / 'scp').mkdir()
    return {
        'storescp (keeps files, no index)': lambda port: [tool('storescp'), '-od', str(root / 'scp'), str(port)],
        'Orthanc (files and index)': orthanc(root, free_port()),
        OUR_NAME: lambda port: [
            str(Path(sys.executable).with_name('ctlab')),
            'node',
            str(root / 'ours'),
            '--port',
            str(port),
        ],
    }


QUIET = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


def send_by_dcmtk(port, *paths):
    """Send files, or a folder after `+sd`, by DCMTK's storescu."""
    target = ('-pdu', '131072', '-aec', 'CTLAB', '127.0.0.1', str(port))
    subprocess.run([tool('storescu'), *target, *map(str, paths)], check=True, **QUIET)


@contextlib.contextmanager
def running(command):
    """Run a server for the duration of the block; yields its process and its port once all of it has started."""
    port = free_port()
    server = subprocess.Popen(command(port), **QUIET)
    try:
        wait_for(port)
        time.sleep(5)  # whatever else it starts: a node runs for months, its start is not what is asked here
        yield server, port
    finally:
        server.terminate()
        server.wait(30)


WHY = 'every object is flushed to the disk and indexed before it is acknowledged, in Python'


def keep_ratios(clock, seconds):
    """Print and keep how we stand beside every peer."""
    from clocks import note

    for name in (n for n in seconds if n != OUR_NAME):
        print(f'    ctlab / {name}: {seconds[OUR_NAME] / seconds[name]:.2f}')
        note(clock, seconds[OUR_NAME], name, seconds[name], reason=WHY)


def one_sender(root, n):
    """Send all slices by one storescu to each server in turn."""
    seconds = {}
    for name, command in servers(root).items():
        with running(command) as (server, port):
            before, start = memory(server), time.perf_counter()
            send_by_dcmtk(port, '+sd', root / 'in')
            took = seconds[name] = time.perf_counter() - start
            grown = f'memory {before:.0f} -> {memory(server):.0f} MB'
            print(f'{name:<36} {took:6.1f} s   {n / took:5.0f} a second   {grown}')
    keep_ratios(f'receive {n} slices of 512 x 512', seconds)


def send_at_once(port, parts):
    """Send each part by a sender of its own, all at a time; returns seconds."""
    start = time.perf_counter()
    threads = [threading.Thread(target=send_by_dcmtk, args=(port, *part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def many_senders(root, files, n, senders=16):
    """Send a sixteenth of the slices by each of sixteen senders at a time, three rounds of new objects."""
    print(f'\n{senders} senders at a time, a sixteenth each, {n} in all')
    rounds = [[files[i::senders] for i in range(senders)]]
    for k in (1, 2):
        rounds.append([fresh(part, root / f'{k}-{i}', f'1.2.{k + 4}') for i, part in enumerate(rounds[0])])
    seconds = {}
    (there := root / 'many').mkdir()
    for name, command in servers(there).items():
        if 'storescp' in name:
            continue  # one sender at a time
        with running(command) as (server, port):
            took = []
            for k, parts in enumerate(rounds):
                took.append(send_at_once(port, parts))
                print(
                    f'{name:<36} round {k + 1} {took[-1]:6.1f} s   {n / took[-1]:5.0f} a second   '
                    f'memory {memory(server):.0f} MB'
                )
            seconds[name] = sum(took) / len(took)
    keep_ratios(f'receive {n} slices from {senders} senders at a time', seconds)


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
