"""An in-memory target with every ability, and a client that speaks to a session.

The machine: registers of an amd64, one byte an instruction.  0x90 goes on; 0xF4 ends the process with the status in
rax; 0xEB jumps back to the start of its page; 0xCB blocks for ever.  `script` holds events
that come instead of running.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from gdbstub.abilities import (
    BreakpointKind,
    BreakpointSite,
    FileStatus,
    LaunchSettings,
    Library,
    LibraryList,
    MemoryRegion,
    MonitorCommand,
    OpenFlags,
    OsTable,
    ProcessDetails,
    ThreadDetails,
    ThreadOptions,
)
from gdbstub.agent import AgentError, Expression
from gdbstub.encoding import frame, run_length_decode
from gdbstub.errors import FileError, MemoryUnreadable, NoSuchThread, TargetError, ThreadExited
from gdbstub.session import Session
from gdbstub.signals import Signal
from gdbstub.stop import (
    HardwareBreakpoint,
    ProcessExited,
    ReplayEnd,
    ReplayLog,
    SoftwareBreakpoint,
    StopEvent,
    Stopped,
    WatchType,
)
from gdbstub.target import RUNNING, ResumeAction, ResumeKind, SliceResult, Stop, Waiting, action_for
from gdbstub.tdesc import FeatureDescription, RegisterDescription, TargetDescription
from gdbstub.thread_id import ThreadId

_GENERAL = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16))]
_CORE = (
    *(RegisterDescription(name, 64, "int64") for name in _GENERAL),
    RegisterDescription("rip", 64, "code_ptr", generic="pc"),
    *(RegisterDescription(name, 32, "int32") for name in ("eflags", "cs", "ss", "ds", "es", "fs", "gs")),
    *(RegisterDescription(f"st{n}", 80, "i387_ext") for n in range(8)),
    *(
        RegisterDescription(name, 32, "int", "float")
        for name in ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
    ),
)
_SSE = (
    *(RegisterDescription(f"xmm{n}", 128, "uint128") for n in range(16)),
    RegisterDescription("mxcsr", 32, "int", "vector"),
)
DESCRIPTION = TargetDescription(
    "i386:x86-64",
    (FeatureDescription("org.gnu.gdb.i386.core", _CORE), FeatureDescription("org.gnu.gdb.i386.sse", _SSE)),
    expedited=(6, 7, 16),
    pc=16,
)
PC = 16
BASE = 0x1000
SIZE = 0x40000
PID = 42
MAIN = ThreadId(PID, PID)


class _Stopped:
    """What an agent expression sees."""

    def __init__(self, target: FakeTarget, thread: ThreadId) -> None:
        self.target = target
        self.thread = thread

    def register(self, regnum: int) -> int:
        try:
            return int.from_bytes(self.target.read_register(self.thread, regnum) or b"", "little")
        except TargetError as error:
            raise AgentError(str(error)) from None

    def memory(self, address: int, size: int) -> int:
        try:
            data = self.target.read_memory(self.thread, address, size)
        except TargetError as error:
            raise AgentError(str(error)) from None
        return int.from_bytes(data, "little")

    def print(self, text: bytes) -> None:
        self.target.printed += text


class FakeTarget:
    """Implements Target and every ability."""

    def __init__(self) -> None:
        self.attached_processes: tuple[int, ...] = ()
        self.memory = bytearray(b"\x90" * SIZE)
        self.registers: dict[ThreadId, list[bytes | None]] = {}
        self.dead: set[ThreadId] = set()
        self.breakpoints: dict[tuple[BreakpointKind, int], tuple[Sequence[Expression], Sequence[Expression]]] = {}
        self.watchpoints: set[tuple[WatchType, int, int]] = set()
        self.actions: Sequence[ResumeAction] = ()
        self.running = False
        self.interrupted = False
        self.non_stop = False
        self.script: deque[SliceResult] = deque()
        self.last: list[StopEvent] = [Stopped(MAIN)]
        self.calls: list[tuple[object, ...]] = []
        self.files: dict[bytes, bytes] = {b"/bin/prog": b"ELF*#$}" * 100}
        self.open_files: dict[int, bytes] = {}
        self.printed = b""
        self.clients = 0
        self.add_thread(MAIN)

    def add_thread(self, thread: ThreadId) -> None:
        values: list[bytes | None] = [bytes(size) for size in DESCRIPTION.sizes]
        values[PC] = BASE.to_bytes(8, "little")
        self.registers[thread] = values
        self.dead.discard(thread)

    def end_thread(self, thread: ThreadId) -> None:
        del self.registers[thread]
        self.dead.add(thread)

    def _registers(self, thread: ThreadId) -> list[bytes | None]:
        if thread in self.registers:
            return self.registers[thread]
        raise ThreadExited(thread) if thread in self.dead else NoSuchThread(thread)

    def pc(self, thread: ThreadId = MAIN) -> int:
        return int.from_bytes(self._registers(thread)[PC] or b"", "little")

    # ------------------------------------------------------------------------------------------ Target

    def attached(self) -> None:
        self.clients += 1

    def detached(self) -> None:
        self.breakpoints.clear()
        self.watchpoints.clear()
        self.non_stop = False

    def description(self, process: int) -> TargetDescription:
        return DESCRIPTION

    def threads(self) -> Sequence[ThreadId]:
        return list(self.registers)

    def introduce(self, threads: Sequence[ThreadId]) -> None:
        """Nothing is recycled here."""

    def is_alive(self, thread: ThreadId) -> bool:
        return thread in self.registers

    def is_running(self) -> bool:
        return self.running

    def status(self) -> Sequence[StopEvent]:
        return self.last

    def read_register(self, thread: ThreadId, regnum: int) -> bytes | None:
        return self._registers(thread)[regnum]

    def read_some_registers(self, thread: ThreadId, regnums: Sequence[int]) -> Sequence[bytes | None]:
        values = self._registers(thread)
        return [values[regnum] for regnum in regnums]

    def read_registers(self, thread: ThreadId) -> Sequence[bytes | None]:
        return self._registers(thread)

    def write_register(self, thread: ThreadId, regnum: int, value: bytes) -> None:
        self._registers(thread)[regnum] = value

    def write_registers(self, thread: ThreadId, values: Sequence[bytes]) -> None:
        self._registers(thread)[: len(values)] = values

    def read_memory(self, thread: ThreadId, address: int, length: int) -> bytes:
        if not BASE <= address < BASE + SIZE:
            raise MemoryUnreadable(address)
        return bytes(self.memory[address - BASE : address - BASE + length])

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        if not BASE <= address <= address + len(data) <= BASE + SIZE:
            raise MemoryUnreadable(address)
        self.memory[address - BASE : address - BASE + len(data)] = data

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        if not self.registers:
            raise TargetError(0x03, "nothing to resume")
        self.actions = actions
        self.running = True

    def run_slice(self) -> SliceResult:
        if self.script:
            result: SliceResult = self.script.popleft()
        elif self.interrupted:
            result = Stop((Stopped(self.threads()[0], Signal.SIGINT),))
        else:
            result = self._run()
        if isinstance(result, Stop):
            self.running = self.interrupted = False
            self.last = list(result.events)
        return result

    def _run(self) -> SliceResult:
        for thread in self.threads():
            action = action_for(self.actions, thread)
            if action is None:
                continue
            if action.kind is ResumeKind.STOP:
                return Stop((Stopped(thread, Signal.SIG0),))
            if (result := self._run_thread(thread, action)) is not None:
                return result
        return RUNNING

    def _run_thread(self, thread: ThreadId, action: ResumeAction) -> SliceResult | None:
        values = self._registers(thread)
        for _ in range(100):
            pc = self.pc(thread)
            code = self.memory[pc - BASE] if BASE <= pc < BASE + SIZE else None
            if code is None:
                return Stop((Stopped(thread, Signal.SIGSEGV),))
            if code == 0xCB:
                return Waiting()
            if code == 0xF4:
                status = (values[0] or b"\0")[0]
                self.registers.clear()
                return Stop((ProcessExited(thread.pid, status),))
            pc = pc & ~0xFFF if code == 0xEB else pc + 1
            values[PC] = pc.to_bytes(8, "little")
            if action.kind is ResumeKind.STEP or (
                action.kind is ResumeKind.RANGE_STEP and not action.start <= pc < action.end
            ):
                return Stop((Stopped(thread),))
            if (hit := self._hit(thread, pc)) is not None:
                return hit
        return None

    def _hit(self, thread: ThreadId, pc: int) -> SliceResult | None:
        for kind in BreakpointKind:
            point = self.breakpoints.get((kind, pc))
            if point is None:
                continue
            conditions, commands = point
            if conditions and not any(condition(_Stopped(self, thread)) for condition in conditions):
                continue
            for command in commands:
                command(_Stopped(self, thread))
            if not commands:
                soft = kind is BreakpointKind.SOFTWARE
                return Stop((Stopped(thread, reason=SoftwareBreakpoint() if soft else HardwareBreakpoint()),))
        return None

    def interrupt(self) -> None:
        self.interrupted = True

    def kill(self, process: int) -> None:
        if all(thread.pid != process for thread in self.registers):
            raise TargetError(0x03, f"no process {process}")
        self.calls.append(("kill", process))
        for thread in [thread for thread in self.registers if thread.pid == process]:
            del self.registers[thread]

    def detach(self, process: int) -> None:
        self.calls.append(("detach", process))

    # --------------------------------------------------------------------------------------- abilities

    def insert_breakpoint(
        self, process: int, site: BreakpointSite, conditions: Sequence[Expression], commands: Sequence[Expression]
    ) -> None:
        self.breakpoints[site.kind, site.address] = (conditions, commands)

    def remove_breakpoint(self, process: int, site: BreakpointSite) -> None:
        self.breakpoints.pop((site.kind, site.address), None)

    def insert_watchpoint(
        self, process: int, kind: WatchType, address: int, length: int, conditions: Sequence[Expression]
    ) -> None:
        self.watchpoints.add((kind, address, length))

    def remove_watchpoint(self, process: int, kind: WatchType, address: int, length: int) -> None:
        self.watchpoints.discard((kind, address, length))

    def thread_details(self, thread: ThreadId) -> ThreadDetails:
        self._registers(thread)
        return ThreadDetails(name=f"na<me{thread.tid}", extra="R (running)", core=0, handle=b"\x01\x02")

    def set_thread_events(self, enabled: bool) -> None:
        self.calls.append(("thread_events", enabled))

    def set_thread_options(self, options: Mapping[ThreadId, ThreadOptions]) -> None:
        self.calls.append(("thread_options", dict(options)))

    def tls_address(self, thread: ThreadId, offset: int, link_map: int) -> int:
        self._registers(thread)
        return 0x7000 + offset

    def set_non_stop(self, enabled: bool) -> None:
        self.non_stop = enabled

    def set_fork_events(self, *, fork: bool, vfork: bool, exec_: bool) -> None:
        self.calls.append(("fork_events", fork, vfork, exec_))

    def catch_syscalls(self, process: int, enabled: bool, numbers: frozenset[int]) -> None:
        self.calls.append(("catch", enabled, numbers))

    def set_pass_signals(self, signals: frozenset[Signal]) -> None:
        self.calls.append(("pass", signals))

    def set_program_signals(self, signals: frozenset[Signal]) -> None:
        self.calls.append(("program", signals))

    def read_siginfo(self, thread: ThreadId) -> bytes:
        self._registers(thread)
        return bytes(range(128))

    def write_siginfo(self, thread: ThreadId, offset: int, data: bytes) -> None:
        self.calls.append(("siginfo", offset, data))

    def launch(self, program: bytes, arguments: Sequence[bytes], settings: LaunchSettings) -> StopEvent:
        if program == b"/missing":
            raise TargetError(0x02, "no such program")
        self.calls.append(("launch", program, tuple(arguments), dict(settings.environment)))
        self.registers.clear()
        self.add_thread(MAIN)
        self.last = [Stopped(MAIN)]
        return self.last[0]

    def attach(self, process: int) -> StopEvent:
        if process != PID:
            raise TargetError(0x03, "no such process")
        return Stopped(MAIN, Signal.SIG0)

    def reverse_continue(self) -> None:
        self.script.append(Stop((Stopped(MAIN, reason=ReplayLog(ReplayEnd.BEGIN)),)))
        self.running = True

    def reverse_step(self, thread: ThreadId) -> None:
        self._registers(thread)[PC] = (self.pc(thread) - 1).to_bytes(8, "little")
        self.script.append(Stop((Stopped(thread),)))
        self.running = True

    def auxiliary_vector(self, process: int) -> bytes:
        return b"\x06" + bytes(7) + b"\x00\x10" + bytes(22)

    def executable_file(self, process: int) -> str:
        return "/bin/prog"

    def libraries(self, process: int, *, start: int, prev: int, namespace: int) -> LibraryList:
        return LibraryList((Library("/lib/l<ibc.so.6", 0x2000, 0x400000, 0x3000),), 0 if start else 0x1800)

    def os_tables(self) -> Mapping[str, str]:
        return {"processes": "Listing of all processes"}

    def os_table(self, name: str) -> OsTable:
        return OsTable(({"pid": str(PID), "command": "prog"},))

    def memory_regions(self, process: int) -> Sequence[MemoryRegion]:
        return [MemoryRegion(BASE, BASE + SIZE, True, True, True, "[code]")]

    def allocate_memory(self, process: int, size: int, *, readable: bool, writable: bool, executable: bool) -> int:
        return 0x8000

    def deallocate_memory(self, process: int, address: int) -> None:
        self.calls.append(("deallocate", address))

    def process_details(self, process: int) -> ProcessDetails:
        return ProcessDetails(PID, 1, "x86_64-pc-linux-gnu", "prog")

    def section_offsets(self, process: int) -> tuple[int, int, int]:
        return (0, 0, 0)

    def file_open(self, process: int, path: bytes, flags: OpenFlags, mode: int) -> int:
        if path not in self.files and OpenFlags.CREATE not in flags:
            raise FileError("ENOENT")
        self.files.setdefault(path, b"")
        descriptor = len(self.open_files) + 3
        self.open_files[descriptor] = path
        return descriptor

    def _file(self, descriptor: int) -> bytes:
        if descriptor not in self.open_files:
            raise FileError("EBADF")
        return self.open_files[descriptor]

    def file_close(self, descriptor: int) -> None:
        self._file(descriptor)
        del self.open_files[descriptor]

    def file_read(self, descriptor: int, length: int, offset: int) -> bytes:
        return self.files[self._file(descriptor)][offset : offset + length]

    def file_write(self, descriptor: int, data: bytes, offset: int) -> int:
        path = self._file(descriptor)
        old = self.files[path]
        self.files[path] = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
        return len(data)

    def file_status(self, descriptor: int) -> FileStatus:
        return FileStatus(1, 2, 0o100755, 1, 0, 0, 0, len(self.files[self._file(descriptor)]), 4096, 8, 1, 2, 3)

    def path_status(self, process: int, path: bytes, *, follow: bool) -> FileStatus:
        if path not in self.files:
            raise FileError("ENOENT")
        return FileStatus(1, 2, 0o100755, 1, 0, 0, 0, len(self.files[path]), 4096, 8, 1, 2, 3)

    def file_unlink(self, process: int, path: bytes) -> None:
        if self.files.pop(path, None) is None:
            raise FileError("ENOENT")

    def file_readlink(self, process: int, path: bytes) -> bytes:
        if path != b"/proc/42/exe":
            raise FileError("EINVAL")
        return b"/bin/prog"

    def monitor_commands(self) -> Sequence[MonitorCommand]:
        def stats(words: Sequence[str]) -> str:
            return f"clock 7 {' '.join(words)}"

        def fail(words: Sequence[str]) -> str:
            raise TargetError(1, "it failed")

        def crash(words: Sequence[str]) -> str:
            raise RuntimeError("a bug")

        return [
            MonitorCommand("stats", "stats [WHAT]", "show counters", stats),
            MonitorCommand("strace", "strace on|off", "trace system calls", fail),
            MonitorCommand("crash", "crash", "a bug", crash),
        ]


class Client:
    """Speaks to a session as a client would, without a socket."""

    def __init__(self, target: FakeTarget, *features: str) -> None:
        self.target = target
        self.session = Session(target)
        self.notices: list[bytes] = []
        self.ask("QStartNoAckMode")
        if features:
            self.ask("qSupported:" + ";".join(features))

    def ask(self, packet: str | bytes) -> bytes:
        """Send one packet; return its one reply."""
        replies = self.talk(packet)
        if len(replies) != 1:
            raise AssertionError(f"{packet!r}: {replies}")
        return replies[0]

    def talk(self, packet: str | bytes) -> list[bytes]:
        """Send one packet; return every reply, notifications apart."""
        payload = packet.encode("latin-1") if isinstance(packet, str) else packet
        out = self.session.receive(frame(payload))
        for _ in range(50):
            if not self.session.runnable:
                break
            out += self.session.run()
        return self.parse(out)

    def parse(self, out: bytes) -> list[bytes]:
        """Replies in what a session sent; each checksum must be right."""
        replies: list[bytes] = []
        while out:
            if out[:1] == b"+":
                out = out[1:]
                continue
            kind, rest = out[:1], out[1:]
            end = rest.index(b"#")
            payload = rest[:end]
            if int(rest[end + 1 : end + 3], 16) != sum(payload) & 0xFF or kind not in b"$%":
                raise AssertionError(f"bad frame {out[:60]!r}")
            (replies if kind == b"$" else self.notices).append(run_length_decode(payload))
            out = rest[end + 3 :]
        return replies
