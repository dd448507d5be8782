"""Tasks have lifetimes.

Rule: a task is named by `TaskUid(tid, serial)`, because tids are recycled; every look-up answers Live, Exited or
Unknown, and an exited task keeps its last registers until it is reaped, never anybody else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, order=True)
class TaskUid:
    """Identity of a task for ever: the tid it had and a serial number that is never used again."""

    tid: int
    serial: int


class TaskState(Enum):
    """design.md, "Tasks have lifetimes"."""

    NEW = "new"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    EXITING = "exiting"
    ZOMBIE = "zombie"
    DEAD = "dead"
