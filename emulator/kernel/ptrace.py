"""What a guest's ptrace(2) keeps about a tracee.  The requests are in syscalls/ptrace.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


class Trace:
    """The tie between a tracee and its tracer."""

    __slots__ = ("options", "seized", "tracer")

    def __init__(self, tracer: Task, seized: bool) -> None:
        self.tracer = tracer
        self.seized = seized
        self.options = 0
