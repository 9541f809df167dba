"""Forking without leaving anything behind: a child ends with its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

_PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def forked(action: Callable[[], object]) -> int:
    """Returns the number of a child that does the action and ends; to be called while this process has one thread."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() == parent:
            action()
            status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
