"""Registers by regnum (g G p P).

Rule: a thread's whole register file is captured once a stop and serves every read until something runs or writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cpu.registers import RegisterFile
from emulator.debug.core import EINVAL, Core
from emulator.debug.descriptions import Description
from emulator.debug.libraries import GuestReader
from emulator.errors import MemoryFault
from emulator.kernel.tasks import Task, TaskUid
from gdbstub.abilities import ThreadDetails
from gdbstub.errors import TargetError
from gdbstub.tdesc import TargetDescription
from gdbstub.thread_id import ThreadId


class RegistersAbility(Core):
    """Target registers."""

    _targets: dict[int, TargetDescription]  # by process, until it ends or runs another program
    captured: dict[TaskUid, RegisterFile]

    def description(self, process: int) -> TargetDescription:
        """Of the process' ISA; of the machine's while there is no process."""
        if process <= 0 and not self.debugged:
            return self.describe_arch(self.kernel.arch).target
        found = self._targets.get(process)
        if found is None:
            found = self._targets[process] = self.registers_description(self.leader(process)).target
        return found

    def capture(self, task: Task) -> RegisterFile:
        """The register file of a task; of a stopped one it is read once."""
        file = self.captured.get(task.uid)
        if file is None:
            file = self.kernel.registers_of(task)
            if task.hold:
                self.captured[task.uid] = file
        return file

    def _numbered(self, task: Task, regnum: int) -> tuple[Description, str, int]:
        known = self.registers_description(task)
        if not 0 <= regnum < len(known.names):
            raise TargetError(EINVAL, f"there is no register {regnum}")
        return known, known.names[regnum], known.sizes[regnum]

    def read_register(self, thread: ThreadId, regnum: int) -> bytes | None:
        """One register in target byte order."""
        task = self.live(thread)
        known, name, size = self._numbered(task, regnum)
        return self.capture(task).read(name).to_bytes(size, known.order)

    def read_some_registers(self, thread: ThreadId, regnums: Sequence[int]) -> Sequence[bytes | None]:
        """The few that a stop reply tells: straight from the CPU if the task is on it, which spares the capture."""
        task = self.live(thread)
        known = self.registers_description(task)
        read = self.kernel.cpu.read if task is self.kernel.current else self.capture(task).read
        return [read(known.names[n]).to_bytes(known.sizes[n], known.order) for n in regnums]

    def read_registers(self, thread: ThreadId) -> Sequence[bytes | None]:
        """All of them, of one moment."""
        task = self.live(thread)
        known = self.registers_description(task)
        pieces = self.capture(task).pieces()
        return pieces if known.order == "little" else [piece[::-1] for piece in pieces]

    def write_register(self, thread: ThreadId, regnum: int, value: bytes) -> None:
        """Set one register."""
        task = self.live(thread)
        known, name, size = self._numbered(task, regnum)
        if len(value) != size:
            raise TargetError(EINVAL, f"{name} has {size} bytes")
        file = self.capture(task)
        file.write(name, int.from_bytes(value, known.order))
        self._store(task, file)

    def write_registers(self, thread: ThreadId, values: Sequence[bytes]) -> None:
        """Set the first len(values) registers."""
        task = self.live(thread)
        known = self.registers_description(task)
        file = self.capture(task)
        for name, value in zip(known.names, values, strict=False):
            file.write(name, int.from_bytes(value, known.order))
        self._store(task, file)

    def _store(self, task: Task, file: RegisterFile) -> None:
        self.kernel.write_registers(task, file)
        self.captured.pop(task.uid, None)

    def thread_details(self, thread: ThreadId) -> ThreadDetails:
        """Its name; what it does is `monitor threads`' to say, as gdbserver's list has no such column."""
        task = self.live(thread)
        name = task.name if task.pid == thread.pid else ""  # as /proc/PID/task has it: a clone is not in there
        return ThreadDetails(name=name, core=0, handle=self._pthread(task))

    def _pthread(self, task: Task) -> bytes:
        """pthread_t where the thread control block begins with its own address, which is pthread_t (TLS variant II).

        Source: Drepper, "ELF Handling For Thread-Local Storage"; gdb's "Thread List Format" (handle).
        """
        pointer = self.capture(task).read(task.arch.tls)
        reader = GuestReader(task)
        try:
            own = pointer != 0 and reader.word(pointer) == pointer
        except MemoryFault:
            return b""
        return pointer.to_bytes(reader.pointer, reader.order) if own else b""
