"""getrandom(2).

Rule: every random byte comes through `Host`, where --seed makes it reproducible.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.errors import LinuxError
from emulator.kernel.tasks import Task
from emulator.kernel.user_memory import user_buffers
from emulator.syscalls.registry import Ptr, Size, UInt, syscall

GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4


@syscall("getrandom")
def getrandom(t: Task, buf: Ptr, buflen: Size, flags: UInt) -> int:
    """getrandom(2): a buffer that turns bad half way gets its good half."""
    if flags & ~7 or flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE:
        raise LinuxError(E.EINVAL)
    done = 0
    for view in user_buffers(t, buf, min(buflen, 32 << 20), Access.WRITE):
        view[:] = t.kernel.host.random(len(view))
        done += len(view)
    return done
