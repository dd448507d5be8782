"""/proc/sysvipc: what ipcs(1) reads.

Source: man 5 proc_sysvipc; ipc/shm.c, ipc/sem.c, ipc/msg.c (sysvipc_*_proc_show).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emulator.kernel.ipc import SHM_DEST, SHM_LOCKED, IpcObject, ipc_of

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

_OWNERS = "  uid   gid  cuid  cgid"


def _head(item: IpcObject, mode: int = 0) -> str:
    return f"{item.key - (item.key >> 31 << 32):10d} {item.ident:10d}  {item.mode | mode:4o}"


def _owners(item: IpcObject) -> str:
    return f"{item.uid:5d} {item.gid:5d} {item.cuid:5d} {item.cgid:5d}"


def shm(t: Task) -> str:
    """Segments, with what of them is in memory: all counts as touched."""
    lines = [
        "       key      shmid perms                  size  cpid  lpid nattch "
        f"{_OWNERS}      atime      dtime      ctime                   rss                  swap\n"
    ]
    for item in ipc_of(t.kernel).segments.in_order():
        mode = (SHM_DEST if item.removed else 0) | (SHM_LOCKED if item.locked else 0)
        lines.append(
            f"{_head(item, mode)} {item.size:21d} {item.cpid:5d} {item.lpid:5d}  {item.attached:5d} {_owners(item)}"
            f" {item.atime:10d} {item.dtime:10d} {item.ctime:10d} {item.resident():21d} {0:21d}\n"
        )
    return "".join(lines)


def sem(t: Task) -> str:
    """Semaphore sets."""
    lines = [f"       key      semid perms      nsems {_OWNERS}      otime      ctime\n"]
    lines += [
        f"{_head(item)} {len(item.values):10d} {_owners(item)} {item.otime:10d} {item.ctime:10d}\n"
        for item in ipc_of(t.kernel).semaphores.in_order()
    ]
    return "".join(lines)


def msg(t: Task) -> str:
    """Message queues."""
    lines = [
        f"       key      msqid perms      cbytes       qnum lspid lrpid {_OWNERS}      stime      rtime      ctime\n"
    ]
    lines += [
        f"{_head(item)}  {item.size:10d} {len(item.messages):10d} {item.lspid:5d} {item.lrpid:5d} {_owners(item)}"
        f" {item.stime:10d} {item.rtime:10d} {item.ctime:10d}\n"
        for item in ipc_of(t.kernel).queues.in_order()
    ]
    return "".join(lines)


FILES: dict[bytes, Callable[[Task], str]] = {b"msg": msg, b"sem": sem, b"shm": shm}
