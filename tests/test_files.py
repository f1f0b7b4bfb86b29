"""Whole files, locks and the halves of dead processes."""

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from ctlab.core import files
from ctlab.core.files import (
    atomic_path,
    exclusive_lock,
    file_hash,
    is_disk_full,
    remove_partial_files,
    require_main_guard,
    write_atomic,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'new' / 'deep' / 'a.txt'
    with atomic_path(path) as half:
        assert half.parent == path.parent and half.name.endswith('-a.txt') and half.name.startswith('.')
        half.write_text('one')
        assert not path.exists()
    assert path.read_text() == 'one' and [p.name for p in path.parent.iterdir()] == ['a.txt']
    with pytest.raises(KeyError), atomic_path(path) as half:
        half.write_text('two')
        raise KeyError
    assert path.read_text() == 'one' and [p.name for p in path.parent.iterdir()] == ['a.txt']
    assert write_atomic(str(tmp_path / 'b' / 't.txt'), 'ä') == tmp_path / 'b' / 't.txt'
    assert (
        write_atomic(tmp_path / 'b.bin', b'\xff').read_bytes() == b'\xff'
        and (tmp_path / 'b' / 't.txt').read_text() == 'ä'
    )
    assert file_hash(tmp_path / 'b.bin') == '85e53271' == file_hash(str(tmp_path / 'b.bin'))


@pytest.mark.parametrize(
    'error, full',
    [
        (OSError(errno.ENOSPC, 'x'), True),
        (OSError(errno.EDQUOT, 'x'), True),
        (OSError(errno.EFBIG, 'x'), True),
        (OSError('640 requested and 10 written'), True),
        (OSError(errno.EACCES, 'x'), False),
        (OSError('written'), False),
    ],
)
def test_a_full_disk_is_known(error, full):
    assert is_disk_full(error) is full


def test_work_does_not_begin_while_a_worker_reads_its_script(monkeypatch):
    require_main_guard()
    monkeypatch.setattr(multiprocessing.current_process(), '_inheriting', True, raising=False)
    with pytest.raises(RuntimeError) as error:
        require_main_guard()
    assert str(error.value) == (
        "this script starts work while its worker processes read it: put what it does under if __name__ == '__main__':"
    )
    with pytest.raises(RuntimeError):
        exclusive_lock('x')


def test_the_second_waits(tmp_path):
    place, order = tmp_path / 'new' / 'er' / 'thing', []

    def work():
        with exclusive_lock(str(place)):
            order.append('second')

    with exclusive_lock(place):
        assert [p.name for p in place.parent.iterdir()] == ['.thing.lock']
        other = threading.Thread(target=work)
        other.start()
        time.sleep(0.2)
        order.append('first')
    other.join(10)
    assert order == ['first', 'second']
    with exclusive_lock(place):
        pass


def test_halves_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()

    def name(number, rest='a-b.txt'):
        return f'.{files._HOST}-{number}-{rest}'

    (tmp_path / 'deep').mkdir()
    gone = [tmp_path / name(dead.pid), tmp_path / 'deep' / name(dead.pid)]
    stay = [
        tmp_path / name(os.getpid()),
        tmp_path / name(1),
        tmp_path / name('x1'),
        tmp_path / '.elsewhere-1-a.txt',
        tmp_path / 'a',
    ]
    for path in (*gone, *stay):
        path.touch()
    remove_partial_files(str(tmp_path))
    assert not any(p.exists() for p in gone) and all(p.exists() for p in stay)


def test_somebody_else_s_process_is_alive(monkeypatch):
    def refuse(number, signal):
        raise PermissionError

    monkeypatch.setattr(os, 'kill', refuse)
    assert files._alive(123) is True

    def absent(number, signal):
        raise ProcessLookupError

    monkeypatch.setattr(os, 'kill', absent)
    assert files._alive(123) is False
