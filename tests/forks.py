"""One server of forks for a whole test run: torch and its like are imported once, however many processes there are.

multiprocessing's fork server imports this module. What is forked from it, and what that forks in turn, finds the server
again instead of starting one of its own. The workers of pytest-xdist find that of their controller.
"""

import os
import re
import socket
from multiprocessing import forkserver
from pathlib import Path


def attach(address: str) -> None:
    """Let this process ask an existing server for its processes."""
    server = forkserver._forkserver
    server._forkserver_address, server.ensure_running = address, lambda: None
    if server._forkserver_alive_fd is None:
        server._forkserver_alive_fd = os.pipe()[1]  # each new process is given one to hold


def share() -> str:
    """Start the server if there is none; returns its address."""
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))  # it imports this
    forkserver._forkserver.ensure_running()
    os.environ.pop('PYTHONPATH') if before is None else os.environ.update(PYTHONPATH=before)
    return forkserver._forkserver._forkserver_address


def _own_address():
    """Find the address that this process listens at; none if it is no server."""
    started = re.search(r'forkserver import main; main\((\d+),', Path('/proc/self/cmdline').read_text())
    return started and socket.socket(fileno=os.dup(int(started[1]))).getsockname()


if address := _own_address():
    os.register_at_fork(after_in_child=lambda: attach(address))
