"""What gdbstub sees: every ability of the emulator as one object.

Rule: abilities live in their own files and share `Core`; here they are only put together, and a client's coming and
going is handled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from emulator.debug.core import Settings
from emulator.debug.launch import LaunchAbility
from emulator.debug.libraries import LibrariesAbility
from emulator.debug.memory import MemoryAbility
from emulator.debug.monitor import MonitorAbility
from emulator.debug.osdata import OsDataAbility
from emulator.debug.siginfo import SiginfoAbility
from emulator.debug.tls import TlsAbility
from emulator.debug.vfile import HostIoAbility
from emulator.kernel.tasks import Live
from gdbstub.abilities import ProcessDetails
from gdbstub.thread_id import ThreadId

if TYPE_CHECKING:
    from emulator.machine import Machine


def _nowhere(_text: str) -> None:
    """The default for diagnostics."""


class EmulatorTarget(
    MonitorAbility,
    MemoryAbility,
    SiginfoAbility,
    LibrariesAbility,
    TlsAbility,
    OsDataAbility,
    HostIoAbility,
):
    """A Linux machine under a debugger.  `write_diagnostic` gets text for the person who runs the server."""

    def __init__(self, machine: Machine, write_diagnostic: Callable[[str], None] = _nowhere) -> None:
        super().__init__(machine)
        self.write_diagnostic = write_diagnostic
        self.points = {}
        self.claims = {}
        self.lingering = {}
        self.captured = {}
        self._targets = {}
        self.files = {}
        self.pending = deque()
        self.deferred = {}
        self.last_task = None
        self.turn_end = self.stops_of_turn = 0
        self.interrupted = False
        self.slice_insns = 200_000
        self.kernel.debugger = self

    def attached(self) -> None:
        """A new client: settings of its own."""
        self._reset()

    def detached(self) -> None:
        """The client vanished: its points and settings go, the processes stay as they are."""
        self._reset()

    def _reset(self) -> None:
        for process in list(self.points):
            self.drop_points(process)
        self.settings = Settings()
        self.pending.clear()
        self.deferred.clear()
        self.interrupted = False
        self.close_files()
        self.captured.clear()
        self.watch_calls()

    def threads(self) -> Sequence[ThreadId]:
        """Live threads."""
        return [self.thread_id(task) for task in self.tasks()]

    def introduce(self, threads: Sequence[ThreadId]) -> None:
        """From now on these ids mean the tasks which have the numbers."""
        for thread in threads:
            match self.kernel.tasks.look_up_tid(thread.tid):
                case Live(task=task) if self.thread_id(task) == thread:
                    self.known[thread] = task.uid
                case _:
                    pass  # it has gone again

    def process_details(self, process: int) -> ProcessDetails:
        """For LLDB."""
        arch = self.kernel.arch
        triple = f"{arch.name}-pc-linux-gnu"
        if not self.debugged:
            return ProcessDetails(0, 0, triple, "", arch.bits // 8, arch.byteorder == "big")
        task = self.leader(process)
        parent = task.group.parent
        return ProcessDetails(
            task.pid,
            parent.tgid if parent is not None else 0,
            triple,
            task.name,
            arch.bits // 8,
            arch.byteorder == "big",
            user=task.credentials.euid,
            group=task.credentials.egid,
        )


class LaunchingTarget(EmulatorTarget, LaunchAbility):
    """For extended-remote: the client may start programs."""

    def __init__(self, machine: Machine, write_diagnostic: Callable[[str], None] = _nowhere) -> None:
        super().__init__(machine, write_diagnostic)
        self.environment = {}
        self.last_launch = (b"", ())
