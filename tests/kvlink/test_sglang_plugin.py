"""The plugin within the real SGLang, without starting an engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thunderserve.engine.sglang.cpu import cpu_environment

pytestmark = pytest.mark.sglang

# Processes of their own: SGLang keeps its plugins, and our hooks, for the whole process.
_START = """
from thunderserve.engine.sglang.cpu import enable_cpu
enable_cpu()
from thunderserve.core.errors import EngineFailedError, PreconditionError
from thunderserve.engine.sglang.embedded import launch
ours = {"disaggregation_mode": "prefill", "disaggregation_transfer_backend": "kvlink"}
"""
NOT_TAKEN = (
    _START
    + """
try:
    launch(ours)
except EngineFailedError as error:
    assert "knows no transfer backend 'kvlink'" in str(error), error
    assert "reinstall" in str(error), error
else:
    raise AssertionError("it started without its backend")
"""
)
TAKEN = (
    _START
    + """
import threading
from types import SimpleNamespace as Fake
from sglang.srt.disaggregation import utils
from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.plugins import load_plugins

load_plugins()
kinds, backend = utils.KVClassType, utils.TransferBackend("kvlink")
from thunderserve.kvlink.sglang_plugin import manager, receiver, sender
assert utils.get_kv_class(backend, kinds.MANAGER) is manager.KvlinkManager
assert utils.get_kv_class(backend, kinds.SENDER) is sender.KvlinkSender
assert utils.get_kv_class(backend, kinds.RECEIVER) is receiver.KvlinkReceiver


class Books(dict):
    '''The scheduler's thread has read them, and another one comes before it writes.'''

    def get(self, *asked):
        found = super().get(*asked)
        if threading.current_thread() is first:
            second.start()
            moved.wait()
        return found


class Lock:
    '''Says when somebody has to wait for it.'''

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            moved.set()
            self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def told():
    books.update_status(7, KVPoll.WaitingForInput)
    moved.set()


books, moved = object.__new__(manager.KvlinkManager), threading.Event()
books._lock, books.request_status = Lock(), Books()
books._deferred_ack_targets, books._deferred_ack_poisoned_rooms = {}, set()
books._staging_outstanding = {}
first = threading.Thread(target=books.update_status, args=(7, KVPoll.Bootstrapping))
second = threading.Thread(target=told)
first.start()
first.join()
second.join()
status = dict.get(books.request_status, 7)
assert status == KVPoll.WaitingForInput, f"the scheduler undid what the sidecar told: {status}"
"""
)


def run(program: str, plugins: str) -> None:
    environment = os.environ | cpu_environment(1)
    environment |= {"SGLANG_PLUGINS": plugins, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_engine_does_not_start_when_the_plugin_did_not_take() -> None:
    """SGLang only logs what a plugin raises, and would go on with another backend's error."""
    run(NOT_TAKEN, "another")


def test_backend_is_there_and_keeps_both_words_when_two_threads_tell_of_a_room() -> None:
    """The scheduler opens a room while the reader hears that the decode side is ready."""
    run(TAKEN, "kvlink")
