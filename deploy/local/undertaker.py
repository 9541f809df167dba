"""A small program that outlives its parent by a moment: when the parent is gone, it ends the processes left behind.

It reads lines `+<pid>` and `-<pid>` from standard input. End of input means that the parent has stopped or died,
whatever the way (kill -9 included): then each process group still on the list gets SIGTERM and, after a grace, SIGKILL.
Unlike PR_SET_PDEATHSIG this does not depend on the thread that started the child, nor on Linux.

Run as a file, not as a module, so that it starts in milliseconds and imports nothing of the project.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 5.0


def alive(group: int) -> bool:
    """Says whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def bury(groups: list[int]) -> None:
    """Ends the groups, the last started first, politely and then not."""
    for group in reversed(groups):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Keeps the list until the parent is gone."""
    for unwanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(unwanted, signal.SIG_IGN)
    groups: list[int] = []
    for line in sys.stdin:
        sign, pid = line[0], int(line[1:])
        if sign == "+":
            groups.append(pid)
        elif pid in groups:
            groups.remove(pid)
    bury(groups)


if __name__ == "__main__":
    main()
