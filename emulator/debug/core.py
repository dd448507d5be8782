"""What every ability of the debugger's target stands on: looking tasks up, and what is known of their last stops.

Rule: a thread-id reaches a Task only through `Core.live`, which asks the TaskRegistry; a thread that has exited is an
error reply, and never another task that has its number now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emulator.abi.signals import Siginfo
from emulator.arch.model import Arch
from emulator.debug.descriptions import Description, describe
from emulator.kernel.tasks import Exited, Live, Task, TaskUid, Unknown
from gdbstub.errors import NoSuchThread, TargetError, ThreadExited
from gdbstub.stop import Stopped
from gdbstub.thread_id import ThreadId

if TYPE_CHECKING:
    from emulator.kernel.address_space import AddressSpace
    from emulator.kernel.thread_group import ThreadGroup
    from emulator.machine import Machine

EINVAL, EIO, ESRCH = 0x16, 0x05, 0x03


@dataclass(slots=True)
class LastStop:
    """Why a thread stopped last, and what came with it."""

    event: Stopped
    info: Siginfo | None = None  # of the signal that is not delivered yet


@dataclass(slots=True)
class Settings:
    """What one client asked for; a new client starts with a new one."""

    non_stop: bool = False
    fork_events: bool = False
    vfork_events: bool = False
    exec_events: bool = False
    thread_events: bool = False
    pass_signals: frozenset[int] = frozenset()
    program_signals: frozenset[int] | None = None
    caught: dict[int, frozenset[int]] = field(default_factory=dict)  # tgid -> syscall numbers, empty: all
    clone_threads: set[TaskUid] = field(default_factory=set)
    exit_threads: set[TaskUid] = field(default_factory=set)


class Core:
    """State that the abilities share."""

    write_diagnostic: Callable[[str], None]  # text for the person who runs the server

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.settings = Settings()
        self.debugged: dict[int, ThreadGroup] = {}  # tgid -> process under the debugger
        # A clone(2) whose end does not send SIGCHLD is a process, but a thread to ptrace and to the debugger.
        self.clones: dict[int, ThreadGroup] = {}  # its tgid -> the debugged process whose thread it is
        self.stops: dict[TaskUid, LastStop] = {}
        self.known: dict[ThreadId, TaskUid] = {}  # what the client means by a thread-id
        self.running = False
        self.exit_requested = False  # `monitor exit`
        self.tls_disabled = (
            False  # `monitor set libthread-db-search-path` to somewhere, as gdbserver without the library
        )
        self._looked_up: dict[ThreadId, Task] = {}  # since something last ran
        self._descriptions: dict[str, Description] = {}
        self.last_stopped: ThreadId | None = None

    # -- look-ups ------------------------------------------------------------------------------------------------

    def live(self, thread: ThreadId) -> Task:
        """The task a thread-id names; raises NoSuchThread or ThreadExited."""
        task = self._looked_up.get(thread)
        if task is not None and task.alive and task.uid == self.known.get(thread):
            return task
        task = self._look_up(thread)
        self._looked_up[thread] = task
        return task

    def _look_up(self, thread: ThreadId) -> Task:
        uid = self.known.get(thread)
        found = self.kernel.tasks.look_up_tid(thread.tid) if uid is None else self.kernel.tasks.look_up(uid)
        match found:
            case Live(task=task) if self.process_of(task) == thread.pid and thread.pid in self.debugged:
                if uid is None:
                    self.known[thread] = task.uid
                return task
            case Live():
                raise NoSuchThread(thread)
            case Exited(status=status):
                raise ThreadExited(thread, status)
            case Unknown():
                pass
        raise NoSuchThread(thread)

    def is_alive(self, thread: ThreadId) -> bool:
        """Ask the registry."""
        try:
            self.live(thread)
        except TargetError:
            return False
        return True

    def group(self, process: int) -> ThreadGroup:
        """A debugged process; 0 means the only, or the first, one."""
        if process <= 0:
            for group in self.debugged.values():
                return group
            raise TargetError(ESRCH, "no process is being debugged")
        try:
            return self.debugged[process]
        except KeyError:
            raise TargetError(ESRCH, f"no process {process} is being debugged") from None

    def leader(self, process: int) -> Task:
        """A live task of the process: its leader, or whoever is left."""
        group = self.group(process)
        for task in group.tasks.values():
            if task.alive:
                return task
        raise TargetError(ESRCH, f"process {group.tgid} has no live thread")

    def space(self, process: int) -> AddressSpace:
        """The address space of a process."""
        return self.leader(process).space

    def process_of(self, task: Task) -> int:
        """The process a debugged task belongs to, as the client sees it."""
        tgid = task.group.tgid
        maker = self.clones.get(tgid)
        return tgid if maker is None else maker.tgid

    def thread_id(self, task: Task) -> ThreadId:
        """How the client calls a task."""
        return ThreadId(self.process_of(task), task.uid.tid)

    def tasks(self) -> Iterator[Task]:
        """Every live task of every debugged process, in the order of their creation."""
        for group in list(self.debugged.values()):
            yield from self.tasks_of(group)

    def tasks_of(self, group: ThreadGroup) -> Iterator[Task]:
        """Every live task of a debugged process."""
        groups = [group]
        if self.clones:
            known = self.kernel.groups
            groups += [known[tgid] for tgid, maker in self.clones.items() if maker is group and tgid in known]
        for member in groups:
            for task in list(member.tasks.values()):
                if task.alive:
                    yield task

    def registers_description(self, task: Task) -> Description:
        """The target description of the task's ISA."""
        return self.describe_arch(task.arch)

    def describe_arch(self, arch: Arch) -> Description:
        """The target description of an ISA, made once."""
        found = self._descriptions.get(arch.name)
        if found is None:
            found = self._descriptions[arch.name] = describe(arch)
        return found

    # -- bookkeeping ---------------------------------------------------------------------------------------------

    def adopt(self, group: ThreadGroup) -> None:
        """Put a process under the debugger."""
        self.debugged[group.tgid] = group

    def release_group(self, tgid: int) -> None:
        """Forget a process."""
        self._looked_up.clear()
        self.debugged.pop(tgid, None)
        self.settings.caught.pop(tgid, None)
        for clone in [clone for clone, maker in self.clones.items() if maker.tgid == tgid]:
            del self.clones[clone]
        for thread in [thread for thread in self.known if thread.pid == tgid]:
            self.stops.pop(self.known.pop(thread), None)

    def note_stop(self, task: Task, stop: LastStop) -> None:
        """Remember why `task` stopped.  Its thread-id goes on meaning what it meant until the client is told."""
        self.stops[task.uid] = stop
        self.known.setdefault(self.thread_id(task), task.uid)
        self.last_stopped = stop.event.thread
