"""`python -m tests.bench.heir PROGRAM [ARGUMENT…]` runs a program and waits for all that its children leave behind (Linux).

An sshd ends a session without waiting for the process that served it. Whoever waits for that has its processor time on account.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
"""Of prctl(2): orphans become this process's children, not init's."""


def main(command: Sequence[str]) -> int:
    """Returns the program's exit status."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    program = os.posix_spawn(command[0], list(command), os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(program, signal.SIGTERM))
    while True:
        ended, status = os.wait()
        if ended == program:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
