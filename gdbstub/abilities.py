"""What a target may be able to do besides being one: a small Protocol for each ability.

Rule: a packet exists only if the target has the ability its row needs (a structural check, made once a connection).
Errors, numbers and the meaning of `thread` are those of `target`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, Flag, IntFlag
from typing import Protocol, runtime_checkable

from gdbstub.agent import Expression
from gdbstub.signals import Signal
from gdbstub.stop import StopEvent, WatchType
from gdbstub.target import Running, Waiting
from gdbstub.thread_id import ThreadId

# ------------------------------------------------------------------------------------------------------------ points


class BreakpointKind(Enum):
    """Z0 or Z1."""

    SOFTWARE = 0
    HARDWARE = 1


@dataclass(frozen=True, slots=True)
class BreakpointSite:
    """Where a breakpoint is; `size` is the protocol's "kind" (on ARM: which instruction set)."""

    kind: BreakpointKind
    address: int
    size: int


@runtime_checkable
class Breakpoints(Protocol):
    """Z0 and Z1.  Inserting the same kind and address again replaces conditions and commands."""

    def insert_breakpoint(
        self, process: int, site: BreakpointSite, conditions: Sequence[Expression], commands: Sequence[Expression]
    ) -> None:
        """Stop before the instruction there runs, if there is no condition or one of them is not zero or fails.

        If `commands` are given, run them all at such a hit and go on without stopping.
        """

    def remove_breakpoint(self, process: int, site: BreakpointSite) -> None:
        """Undo; removing one that is not there is no error."""


@runtime_checkable
class Watchpoints(Protocol):
    """Z2, Z3, Z4 of any length."""

    def insert_watchpoint(
        self, process: int, kind: WatchType, address: int, length: int, conditions: Sequence[Expression]
    ) -> None:
        """Stop when a byte of the range is touched in that way."""

    def remove_watchpoint(self, process: int, kind: WatchType, address: int, length: int) -> None:
        """Undo."""


# ------------------------------------------------------------------------------------------------------------ threads


@dataclass(frozen=True, slots=True)
class ThreadDetails:
    """What `info threads` shows."""

    name: str = ""
    extra: str = ""  # qThreadExtraInfo: free text for people
    core: int | None = None
    handle: bytes = b""  # pthread_t, target byte order
    id_str: str = ""  # gdb >= 17


@runtime_checkable
class ThreadInformation(Protocol):
    """qThreadExtraInfo and the threads object."""

    def thread_details(self, thread: ThreadId) -> ThreadDetails:
        """Raises NoSuchThread or ThreadExited."""


class ThreadOptions(IntFlag):
    """QThreadOptions' bits: report the thread's clones, its exit."""

    CLONE = 1
    EXIT = 2


@runtime_checkable
class ThreadEvents(Protocol):
    """QThreadEvents and QThreadOptions."""

    def set_thread_events(self, enabled: bool) -> None:
        """Report ThreadCreated and ThreadExitedEvent of every thread."""

    def set_thread_options(self, options: Mapping[ThreadId, ThreadOptions]) -> None:
        """Set the options of each thread named; a clone of a CLONE thread inherits them."""


@runtime_checkable
class ThreadLocalStorage(Protocol):
    """qGetTLSAddr."""

    def tls_address(self, thread: ThreadId, offset: int, link_map: int) -> int:
        """Address of the variable at `offset` in the module's TLS block."""


# ------------------------------------------------------------------------------------------------- processes, events


@runtime_checkable
class NonStop(Protocol):
    """QNonStop."""

    def set_non_stop(self, enabled: bool) -> None:
        """From now on a stop concerns only the threads that its events name."""


@runtime_checkable
class Beside(Protocol):
    """Processes without a debugger run on while those with one are stopped."""

    def run_beside(self) -> Running | Waiting | None:
        """A slice for them; None if there are none.  Nothing is reported."""


@runtime_checkable
class ForkEvents(Protocol):
    """fork-events, vfork-events, exec-events: reported only once the client offered them."""

    def set_fork_events(self, *, fork: bool, vfork: bool, exec_: bool) -> None:
        """Called after negotiation.  With `fork`, the child of a fork is stopped, and debugged until detached."""


@runtime_checkable
class SyscallCatching(Protocol):
    """QCatchSyscalls."""

    def catch_syscalls(self, process: int, enabled: bool, numbers: frozenset[int]) -> None:
        """Report SyscallEntry and SyscallReturn of these numbers; of all if `numbers` is empty."""


@runtime_checkable
class SignalPolicy(Protocol):
    """QPassSignals and QProgramSignals."""

    def set_pass_signals(self, signals: frozenset[Signal]) -> None:
        """Deliver these without a stop."""

    def set_program_signals(self, signals: frozenset[Signal]) -> None:
        """Only these may be delivered to the program when it goes on (detach)."""


@runtime_checkable
class SignalInformation(Protocol):
    """qXfer:siginfo."""

    def read_siginfo(self, thread: ThreadId) -> bytes:
        """siginfo_t of the signal the thread stopped with; raises TargetError if there is none."""

    def write_siginfo(self, thread: ThreadId, offset: int, data: bytes) -> None:
        """Change it before it is delivered."""


@dataclass(slots=True)
class LaunchSettings:
    """What the next vRun starts with (QStartupWithShell, QEnvironmentHexEncoded ...)."""

    environment: dict[bytes, bytes | None] = field(default_factory=dict)  # None: unset
    working_directory: bytes = b""  # "": the server's
    startup_with_shell: bool = False
    disable_randomization: bool = True


@runtime_checkable
class Launch(Protocol):
    """extended-remote: vRun, R, vAttach."""

    def launch(self, program: bytes, arguments: Sequence[bytes], settings: LaunchSettings) -> StopEvent:
        """Start a program ("": the last one), stopped before its first instruction; TargetError if it cannot be."""

    def attach(self, process: int) -> StopEvent:
        """Stop a process that runs without a debugger."""


@runtime_checkable
class ReverseExecution(Protocol):
    """bc and bs.  `run_slice` then answers as for a resume, with ReplayLog at the ends."""

    def reverse_continue(self) -> None:
        """Every thread, back to a stop or to the beginning."""

    def reverse_step(self, thread: ThreadId) -> None:
        """One instruction of this thread."""


# ----------------------------------------------------------------------------------------------------------- objects


@runtime_checkable
class AuxiliaryVector(Protocol):
    """qXfer:auxv."""

    def auxiliary_vector(self, process: int) -> bytes:
        """Pairs of words in target byte order, as /proc/PID/auxv holds them; AT_NULL is the last."""


@runtime_checkable
class ExecutableFile(Protocol):
    """qXfer:exec-file."""

    def executable_file(self, process: int) -> str:
        """Absolute name, as vFile:open takes it."""


@dataclass(frozen=True, slots=True)
class Library:
    """One link_map of an SVR4 dynamic linker."""

    name: str
    link_map: int
    load_bias: int  # l_addr
    dynamic: int  # l_ld
    namespace: int = 0  # lmid: address of its r_debug (0: leave out)


@dataclass(frozen=True, slots=True)
class LibraryList:
    """`main_link_map` is 0 in a list that was asked for by `start`/`prev`."""

    libraries: tuple[Library, ...] = ()
    main_link_map: int = 0


@runtime_checkable
class Libraries(Protocol):
    """qXfer:libraries-svr4 with its annex."""

    def libraries(self, process: int, *, start: int, prev: int, namespace: int) -> LibraryList:
        """The link_maps from `start` on (whose l_prev is `prev`), or all of them if start is 0."""


@dataclass(frozen=True, slots=True)
class OsTable:
    """One table of `info os`: a row is column name -> text."""

    rows: tuple[Mapping[str, str], ...]


@runtime_checkable
class OsData(Protocol):
    """qXfer:osdata."""

    def os_tables(self) -> Mapping[str, str]:
        """Tables there are: name ("processes") -> description ("Listing of all processes")."""

    def os_table(self, name: str) -> OsTable:
        """A table by name; raises TargetError if there is none such."""


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """One mapping; gaps between regions are unmapped."""

    start: int
    end: int
    readable: bool
    writable: bool
    executable: bool
    name: str = ""


@runtime_checkable
class MemoryRegions(Protocol):
    """qMemoryRegionInfo."""

    def memory_regions(self, process: int) -> Sequence[MemoryRegion]:
        """Sorted by address."""


@runtime_checkable
class MemoryAllocation(Protocol):
    """LLDB's _M and _m."""

    def allocate_memory(self, process: int, size: int, *, readable: bool, writable: bool, executable: bool) -> int:
        """Map `size` bytes somewhere and return the address; raises TargetError if there is no room."""

    def deallocate_memory(self, process: int, address: int) -> None:
        """Unmap what `allocate_memory` returned; raises TargetError for anything else."""


@dataclass(frozen=True, slots=True)
class ProcessDetails:
    """LLDB's qProcessInfo and qHostInfo.  `triple`: "x86_64-pc-linux-gnu"; the pid is the guest's, never a host's."""

    pid: int
    parent_pid: int
    triple: str
    name: str
    pointer_size: int = 8
    big_endian: bool = False
    os_type: str = "linux"
    user: int = 0
    group: int = 0


@runtime_checkable
class ProcessInformation(Protocol):
    """qProcessInfo, qHostInfo."""

    def process_details(self, process: int) -> ProcessDetails:
        """`process` may be 0 (no process): then only the host part counts."""


@runtime_checkable
class SectionOffsets(Protocol):
    """qOffsets."""

    def section_offsets(self, process: int) -> tuple[int, int, int]:
        """By how much text, data and bss were moved at load."""


# ---------------------------------------------------------------------------------------------------------- host I/O


class OpenFlags(Flag):
    """vFile:open's flags; READ|WRITE say the access mode."""

    READ = 1
    WRITE = 2
    APPEND = 4
    CREATE = 8
    TRUNCATE = 16
    EXCLUSIVE = 32


@dataclass(frozen=True, slots=True)
class FileStatus:
    """struct stat, times in whole seconds."""

    device: int
    inode: int
    mode: int  # with S_IFMT, the Linux bits
    links: int
    user: int
    group: int
    raw_device: int
    size: int
    block_size: int
    blocks: int
    access_time: int
    modification_time: int
    change_time: int


@runtime_checkable
class HostIo(Protocol):
    """vFile over the guest's file system.  Failures raise FileError.  `process`: whose view (0: default)."""

    def file_open(self, process: int, path: bytes, flags: OpenFlags, mode: int) -> int:
        """A descriptor (small number) that the other calls take; all are closed at `detached`."""

    def file_close(self, descriptor: int) -> None:
        """close(2)."""

    def file_read(self, descriptor: int, length: int, offset: int) -> bytes:
        """pread(2): at most `length` bytes; b"" at the end of the file."""

    def file_write(self, descriptor: int, data: bytes, offset: int) -> int:
        """pwrite(2): how many bytes were written."""

    def file_status(self, descriptor: int) -> FileStatus:
        """fstat(2)."""

    def path_status(self, process: int, path: bytes, *, follow: bool) -> FileStatus:
        """stat(2), or lstat(2) unless `follow`."""

    def file_unlink(self, process: int, path: bytes) -> None:
        """unlink(2)."""

    def file_readlink(self, process: int, path: bytes) -> bytes:
        """readlink(2)."""


# ----------------------------------------------------------------------------------------------------------- monitor


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """`monitor NAME ARGUMENTS`.  `run` gets the words after the name and returns text for the user."""

    name: str
    usage: str  # "strace on|off"
    help: str  # one line
    run: Callable[[Sequence[str]], str]


@runtime_checkable
class Monitor(Protocol):
    """qRcmd."""

    def monitor_commands(self) -> Sequence[MonitorCommand]:
        """Asked at every use, in the order `monitor help` lists them."""
