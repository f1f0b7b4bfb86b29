"""A series in an S3 store: what crosses the line when sixty of its slices are wanted.

The store is moto's server on this machine; a wire in between counts the bytes that come back, with all that HTTP adds.
"""

import csv
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path


class Line:
    """A wire to a server on this machine that counts what comes back."""

    def __init__(self, server):
        self.bytes, self.lock = 0, threading.Lock()
        self.server, self.listener = server, socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(('127.0.0.1', self.server))
            for source, target, counted in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._carry, args=(source, target, counted), daemon=True).start()

    def _carry(self, source, target, counted):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._count(len(data) if counted else 0)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, length):
        with self.lock:
            self.bytes += length


@contextmanager
def serving():
    """Serve an empty S3 store and point fsspec's s3:// to it."""
    import fsspec

    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).with_name('moto_server'), '-H', '127.0.0.1', '-p', str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = fsspec.config.conf.get('s3')
    try:
        for _ in range(600):
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        line = Line(port)
        fsspec.config.conf['s3'] = {'endpoint_url': f'http://127.0.0.1:{line.port}', 'key': 'x', 'secret': 'y'}
        yield line
        line.listener.close()
    finally:
        fsspec.config.conf.pop('s3')
        if before is not None:
            fsspec.config.conf['s3'] = before
        process.kill()
        process.wait()


def main():
    import fsspec
    from clocks import note
    from scans import best, series

    from ctlab.cohort.stacks import StackPreprocessing, make_stack

    folder, preprocessing = series(), StackPreprocessing()
    whole = sum(p.stat().st_size for p in folder.iterdir())
    with serving() as line:
        store = fsspec.filesystem('s3')
        store.mkdir('scans')
        store.put(str(folder), 'scans/', recursive=True)

        def plain():
            with tempfile.TemporaryDirectory() as here:
                store.get(f'scans/{folder.name}', here, recursive=True)
                make_stack(next(Path(here).rglob('*.dcm')).parent, preprocessing)

        rows = [
            ('the whole series fetched, then read', plain),
            ('ctlab, by its URL', lambda: make_stack(f's3://scans/{folder.name}', preprocessing)),
        ]
        print(f'{len(list(folder.iterdir()))} slices of 512 x 512, {whole / 1e6:.1f} MB; 60 of them kept')
        print(f'{"":<38}{"seconds":>9}{"MB over the line":>18}{"of the whole":>14}')
        found = []
        for name, work in rows:
            line.bytes = 0
            found.append((name, round(best(work, 1), 2), round(line.bytes / 1e6, 1), round(line.bytes / whole, 3)))
            print(f'{name:<38}{found[-1][1]:9.2f}{found[-1][2]:18.1f}{found[-1][3]:14.0%}')
    why = f'on one machine requests cost more than bytes; {found[1][3]:.0%} of the bytes cross the line'
    note('60 of 300 slices from an S3 store', found[1][1], *found[0][:2], reason=why)
    with (Path(__file__).parents[1] / 'reports' / 'reference' / 'remote.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('way', 'seconds', 'MB over the line', 'of the whole'), *found])


if __name__ == '__main__':
    main()
