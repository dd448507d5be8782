"""The debugger's target, without a wire: what each ability promises gdbstub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.abi.signals import Siginfo
from emulator.abi.signals import Signal as GuestSignal
from emulator.arch import by_name
from emulator.debug.target import EmulatorTarget, LaunchingTarget
from emulator.kernel.boot import power_on, spawn
from emulator.kernel.kernel import Config
from emulator.kernel.signals import send_to_group
from emulator.machine import Machine
from gdbstub.abilities import BreakpointKind, BreakpointSite, OpenFlags
from gdbstub.agent import compile_expression
from gdbstub.errors import FileError, MemoryUnreadable, NoSuchThread, TargetError, ThreadExited
from gdbstub.signals import Signal
from gdbstub.stop import (
    Forked,
    ForkKind,
    NoResumed,
    ProcessExited,
    ProcessSignalled,
    SoftwareBreakpoint,
    StopEvent,
    Stopped,
    SyscallEntry,
    SyscallReturn,
    ThreadExitedEvent,
    VforkDone,
    Watchpoint,
    WatchType,
)
from gdbstub.target import RUNNING, ResumeAction, ResumeKind, Stop, Waiting
from gdbstub.thread_id import EVERY, ThreadId
from tests.emulator.debug import programs


class Rig:
    """A target with one process."""

    def __init__(self, source: str) -> None:
        self.program = programs.build(source)
        self.symbol = programs.symbols(self.program)
        path = os.fsencode(self.program)
        self.machine = Machine(power_on(by_name("x86_64"), Config()))
        self.task = spawn(self.machine.kernel, path, [path], [b"A=b"])
        self.target = EmulatorTarget(self.machine)
        self.target.attached()
        self.first = self.target.stop_at_start(self.task)
        self.pid = self.task.pid
        self.thread = ThreadId(self.pid, self.pid)

    def wait(self, slices: int = 400) -> StopEvent:
        for _ in range(slices):
            result = self.target.run_slice()
            if isinstance(result, Stop):
                return result.events[0]
            if isinstance(result, Waiting):
                raise AssertionError("it sleeps")
        raise AssertionError("it never stops")

    def go(self, kind: ResumeKind = ResumeKind.CONTINUE, signal: Signal = Signal.SIG0, **more: int) -> StopEvent:
        self.target.resume([ResumeAction(kind, EVERY, signal, **more)])
        return self.wait()

    def register(self, name: str) -> int:
        numbers = {r.name: n for n, r in enumerate(self.target.description(self.pid).registers)}
        value = self.target.read_register(self.thread, numbers[name])
        assert value is not None
        return int.from_bytes(value, "little")

    def break_at(self, symbol: str, condition: str = "") -> None:
        conditions = [compile_expression(bytes.fromhex(condition))] if condition else []
        address = self.symbol[symbol]
        self.target.insert_breakpoint(self.pid, BreakpointSite(BreakpointKind.SOFTWARE, address, 1), conditions, [])


@pytest.fixture
def loop() -> Iterator[Rig]:
    yield Rig(programs.LOOP.replace("COUNT", "5"))


def test_a_new_process_waits_before_its_first_instruction(loop: Rig) -> None:
    assert loop.first == Stopped(loop.thread, Signal.SIGTRAP, core=0)
    assert list(loop.target.status()) == [loop.first]
    assert loop.register("rip") == loop.symbol["_start"]
    assert not loop.target.is_running()


def test_it_runs_to_its_end(loop: Rig) -> None:
    assert loop.go() == ProcessExited(loop.pid, 7)
    assert loop.target.threads() == []
    with pytest.raises(TargetError):
        loop.target.read_registers(loop.thread)


def test_steps_and_range_steps(loop: Rig) -> None:
    assert loop.go(ResumeKind.STEP) == Stopped(loop.thread, Signal.SIGTRAP, core=0)
    assert loop.register("rip") == loop.symbol["_start"] + 2
    start = loop.symbol["_start"]
    loop.go(ResumeKind.RANGE_STEP, start=start, end=start + 12)
    assert loop.register("rip") == loop.symbol["f"]


def test_a_breakpoint_stops_each_time_and_is_stepped_over(loop: Rig) -> None:
    loop.break_at("f")
    for count in range(5):
        assert loop.go() == Stopped(loop.thread, Signal.SIGTRAP, SoftwareBreakpoint(), core=0)
        assert (loop.register("rip"), loop.register("rax")) == (loop.symbol["f"], count)
    assert loop.go() == ProcessExited(loop.pid, 7)


def test_a_breakpoint_is_not_in_memory(loop: Rig) -> None:
    before = loop.target.read_memory(loop.thread, loop.symbol["f"], 4)
    loop.break_at("f")
    assert loop.target.read_memory(loop.thread, loop.symbol["f"], 4) == before


def test_a_false_condition_makes_no_event(loop: Rig) -> None:
    loop.break_at("f", "260000" + "2203" + "13" + "27")  # rax == 3
    loop.go()
    assert loop.register("rax") == 3
    assert loop.go() == ProcessExited(loop.pid, 7)


def test_a_condition_that_fails_stops(loop: Rig) -> None:
    loop.break_at("f", "2201" + "19" + "27")  # *(long *)1: cannot be read
    assert isinstance(loop.go(), Stopped)


def test_watchpoints(loop: Rig) -> None:
    loop.target.insert_watchpoint(loop.pid, WatchType.WRITE, loop.symbol["var"], 8, [])
    for count in range(1, 4):
        stop = loop.go()
        assert stop == Stopped(loop.thread, Signal.SIGTRAP, Watchpoint(WatchType.WRITE, loop.symbol["var"]), core=0)
        assert loop.target.read_memory(loop.thread, loop.symbol["var"], 1) == bytes([count])
    loop.target.remove_watchpoint(loop.pid, WatchType.WRITE, loop.symbol["var"], 8)
    assert loop.go() == ProcessExited(loop.pid, 7)


@pytest.mark.parametrize("kind", [ResumeKind.CONTINUE, ResumeKind.STEP])
def test_watchpoints_see_what_system_calls_store(kind: ResumeKind) -> None:
    rig = Rig(programs.STORED)
    rig.break_at("call")
    rig.go()
    rig.target.insert_watchpoint(rig.pid, WatchType.WRITE, rig.symbol["var"] + 4, 4, [])
    seen = Watchpoint(WatchType.WRITE, rig.symbol["var"] + 4)
    assert rig.go(kind) == Stopped(rig.thread, Signal.SIGTRAP, seen, core=0)
    assert rig.register("rip") == rig.symbol["after"]
    rig.target.remove_watchpoint(rig.pid, WatchType.WRITE, rig.symbol["var"] + 4, 4)
    assert rig.machine.kernel.stored is None
    assert rig.go() == ProcessExited(rig.pid, 7)


def test_memory(loop: Rig) -> None:
    target, thread = loop.target, loop.thread
    target.write_memory(thread, loop.symbol["done"] + 6, b"\x09")  # into read-only code: exit status 9
    assert target.read_memory(thread, loop.symbol["done"] + 5, 2) == b"\xbf\x09"
    for address in (0, 0x1000, (1 << 64) - 1):
        with pytest.raises(MemoryUnreadable):
            target.read_memory(thread, address, 8)
        with pytest.raises(MemoryUnreadable):
            target.write_memory(thread, address, b"x")
    end = 0x7FFFFFFFF000
    assert len(target.read_memory(thread, end - 3, 100)) == 3
    assert loop.go() == ProcessExited(loop.pid, 9)


def test_registers_are_written_in_one_go(loop: Rig) -> None:
    values = [value or b"" for value in loop.target.read_registers(loop.thread)]
    values[1] = (0x1234).to_bytes(8, "little")
    loop.target.write_registers(loop.thread, values)
    assert loop.register("rbx") == 0x1234
    with pytest.raises(TargetError):
        loop.target.read_register(loop.thread, 9999)
    with pytest.raises(TargetError):
        loop.target.write_register(loop.thread, 0, b"short")


def test_catch_syscalls(loop: Rig) -> None:
    loop.target.catch_syscalls(loop.pid, True, frozenset({60}))
    assert loop.go() == Stopped(loop.thread, Signal.SIGTRAP, SyscallEntry(60), core=0)
    assert loop.go() == ProcessExited(loop.pid, 7)


def test_catch_every_syscall_with_its_return() -> None:
    rig = Rig(programs.THREAD)
    rig.target.catch_syscalls(rig.pid, True, frozenset())
    reasons = []
    while isinstance(stop := rig.go(), Stopped):
        reasons.append(stop.reason)
    assert SyscallEntry(56) in reasons
    assert SyscallReturn(56) in reasons


def test_a_signal_stops_before_delivery_and_can_be_passed_or_dropped() -> None:
    rig = Rig(programs.SEGFAULT)
    stop = rig.go()
    assert stop == Stopped(rig.thread, Signal.SIGSEGV, core=0)
    info = rig.target.read_siginfo(rig.thread)
    assert info[:12] == (11).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little")
    assert info[16:24] == (0x1000).to_bytes(8, "little")
    assert rig.go() == stop  # dropped: it faults again
    assert rig.go(signal=Signal.SIGSEGV) == ProcessSignalled(rig.pid, Signal.SIGSEGV)


def test_passed_signals_do_not_stop() -> None:
    rig = Rig(programs.SEGFAULT)
    rig.target.set_pass_signals(frozenset({Signal.SIGSEGV}))
    assert rig.go() == ProcessSignalled(rig.pid, Signal.SIGSEGV)


def test_a_passed_signal_stops_one_who_steps() -> None:
    rig = Rig(programs.SEGFAULT)
    rig.target.set_pass_signals(frozenset({Signal.SIGSEGV}))
    start = rig.symbol["_start"]
    stop = rig.go(ResumeKind.RANGE_STEP, start=start, end=start + 100)
    assert stop == Stopped(rig.thread, Signal.SIGSEGV, core=0)


def test_ctrl_c_while_computing_while_blocked_and_before_anything_ran() -> None:
    for source in (programs.LOOP.replace("COUNT", "1000000000"), programs.BLOCKED):
        rig = Rig(source)
        rig.target.interrupt()
        assert rig.go() == Stopped(rig.thread, Signal.SIGINT, core=0)
        rig.target.resume([ResumeAction(ResumeKind.CONTINUE, EVERY)])
        rig.target.run_slice()
        rig.target.interrupt()
        assert rig.wait() == Stopped(rig.thread, Signal.SIGINT, core=0)


def test_a_thread_that_has_exited_is_an_error_and_nobody_else() -> None:
    rig = Rig(programs.THREAD)
    rig.target.set_thread_events(True)
    rig.break_at("child")
    stop = rig.go()
    while isinstance(stop, Stopped) and stop.reason != SoftwareBreakpoint():
        stop = rig.go()
    assert isinstance(stop, Stopped)
    child = stop.thread
    assert list(rig.target.threads()) == [rig.thread, child]
    assert rig.target.is_alive(child)
    assert rig.go() == ThreadExitedEvent(child, 0)
    assert not rig.target.is_alive(child)
    for call in (
        lambda: rig.target.read_registers(child),
        lambda: rig.target.read_register(child, 0),
        lambda: rig.target.write_register(child, 0, bytes(8)),
        lambda: rig.target.thread_details(child),
        lambda: rig.target.read_siginfo(child),
        lambda: rig.target.tls_address(child, 0, 0),
    ):
        with pytest.raises(ThreadExited):
            call()
    with pytest.raises(NoSuchThread):
        rig.target.read_registers(ThreadId(rig.pid, 31000))
    assert rig.target.read_register(rig.thread, 0) is not None
    assert rig.go() == ProcessExited(rig.pid, 0)


def test_threads_no_action_covers_stay_stopped() -> None:
    rig = Rig(programs.THREAD)
    rig.break_at("child")
    stop = rig.go()
    assert isinstance(stop, Stopped)
    before = rig.register("rip")
    rig.target.resume([ResumeAction(ResumeKind.STEP, stop.thread)])
    assert rig.wait() == Stopped(stop.thread, Signal.SIGTRAP, core=0)
    assert rig.register("rip") == before  # the leader has not moved
    rig.target.resume([ResumeAction(ResumeKind.CONTINUE, stop.thread)])
    assert rig.wait() == NoResumed()


def test_stops_do_not_change_how_threads_interleave() -> None:
    def log_of(*symbols: str) -> bytes:
        rig = Rig(programs.TWINS)
        for symbol in ("done", *symbols):
            rig.break_at(symbol)
        rig.go()
        while rig.register("rip") != rig.symbol["done"]:
            rig.target.resume([ResumeAction(ResumeKind.STEP, rig.target.last_stopped or EVERY)])  # over it, alone
            rig.wait()
            rig.go()
        return rig.target.read_memory(rig.thread, rig.symbol["log"], 80)

    log = log_of()
    assert len({log[i : i + 8] for i in range(0, 80, 8)}) > 5
    assert log_of("tick") == log


def test_kill_and_detach(loop: Rig) -> None:
    loop.target.kill(loop.pid)
    assert loop.target.threads() == []
    other = Rig(programs.LOOP.replace("COUNT", "5"))
    other.break_at("f")
    other.target.detach(other.pid)
    assert other.target.threads() == []
    assert other.task.group.tgid not in other.target.points
    for _ in range(20):
        other.machine.run(10_000)
    assert other.machine.kernel.first_status == 7 << 8


def test_a_vanished_client_leaves_the_process_and_takes_its_points(loop: Rig) -> None:
    loop.break_at("f")
    loop.go()
    loop.target.detached()
    loop.target.attached()
    assert loop.target.status()
    assert loop.go() == ProcessExited(loop.pid, 7)


def test_files_are_the_guests(loop: Rig, tmp_path: Path) -> None:
    target = loop.target
    fd = target.file_open(0, b"/proc/%d/maps" % loop.pid, OpenFlags.READ, 0)
    assert b"[stack]" in target.file_read(fd, 4096, 0)
    target.file_close(fd)
    assert target.file_readlink(0, b"/proc/self/exe") == os.fsencode(loop.program)
    name = os.fsencode(tmp_path / "new")
    fd = target.file_open(0, name, OpenFlags.WRITE | OpenFlags.CREATE, 0o600)
    assert target.file_write(fd, b"hello", 0) == 5
    assert target.file_status(fd).size == target.path_status(0, name, follow=True).size == 5
    target.detached()
    with pytest.raises(FileError, match="EBADF"):
        target.file_close(fd)
    target.file_unlink(0, name)
    with pytest.raises(FileError, match="ENOENT"):
        target.file_open(0, name, OpenFlags.READ, 0)


def test_objects(loop: Rig) -> None:
    target = loop.target
    assert target.executable_file(loop.pid) == str(loop.program)
    assert target.auxiliary_vector(loop.pid)[-16:] == bytes(16)
    with pytest.raises(TargetError, match="DT_DEBUG"):  # a static program
        target.libraries(loop.pid, start=0, prev=0, namespace=0)
    rows = target.os_table("processes").rows
    assert [row["pid"] for row in rows] == [str(loop.pid)]
    assert set(target.os_tables()) >= {"processes", "threads", "files"}
    for name in target.os_tables():
        assert bool(target.os_table(name).rows) == (name not in ("shm", "semaphores", "msg", "sockets"))
    with pytest.raises(TargetError):
        target.os_table("nonsense")
    assert target.thread_details(loop.thread).name == "program"
    regions = target.memory_regions(loop.pid)
    assert [region.name for region in regions][-1] == "[stack]"
    address = target.allocate_memory(loop.pid, 100, readable=True, writable=True, executable=False)
    target.write_memory(loop.thread, address, b"mine")
    target.deallocate_memory(loop.pid, address)


def test_tables_of_what_processes_share() -> None:
    rig = Rig(programs.SHARED)
    rig.break_at("done")
    rig.go()
    rows = {}
    for name in ("shm", "semaphores", "msg", "sockets"):
        (rows[name],) = rig.target.os_table(name).rows
    assert (rows["shm"]["key"], rows["shm"]["perm"], rows["shm"]["size"]) == ("17", "666", "4096")
    assert rows["shm"]["creator command"] == "program"
    assert (rows["semaphores"]["key"], rows["semaphores"]["num semaphores"]) == ("18", "3")
    assert (rows["msg"]["key"], rows["msg"]["perm"]) == ("19", "600")
    assert rows["msg"]["last msgsnd() time"] == ""
    socket = dict(rows["sockets"])
    assert int(socket.pop("local port")) > 0
    assert list(socket.values())[:4] == ["0.0.0.0", "0.0.0.0", "0", "LISTEN"]
    assert (socket["family"], socket["protocol"]) == ("INET", "STREAM")


def test_monitor_commands_answer(loop: Rig) -> None:
    for command in loop.target.monitor_commands():
        if command.name not in ("exit", "set"):
            assert isinstance(command.run([]), str)
    commands = {command.name: command for command in loop.target.monitor_commands()}
    assert "strace is on" in commands["strace"].run(["on"])
    assert "strace is off" in commands["strace"].run(["off"])
    assert commands["set"].run(["debug", "0"]) == "Debug output disabled.\n"
    assert commands["clock"].run([]) == "0\n"


def test_undebugged_processes_run_on_and_can_be_attached() -> None:
    rig = Rig(programs.FORK)
    assert rig.target.run_beside() is None
    rig.break_at("parent")
    rig.go()
    child = rig.pid + 1
    clock = rig.machine.cpu.clock
    assert rig.target.run_beside() is RUNNING
    assert rig.machine.cpu.clock > clock
    attacher = LaunchingTarget(rig.machine)
    attacher.attached()
    stop = attacher.attach(child)
    assert stop == Stopped(ThreadId(child, child), Signal.SIGTRAP, core=0)
    with pytest.raises(TargetError):
        attacher.attach(31000)
    attacher.kill(child)
    assert not rig.machine.kernel.groups[child].tasks  # a zombie: its parent has not waited


def test_fork_events_stop_both_sides_and_give_the_child_its_points() -> None:
    rig = Rig(programs.FORK)
    rig.target.set_fork_events(fork=True, vfork=True, exec_=True)
    rig.break_at("child")
    stop = rig.go()
    child = ThreadId(rig.pid + 1, rig.pid + 1)
    assert stop == Stopped(rig.thread, Signal.SIGTRAP, Forked(ForkKind.FORK, child), core=0)
    assert list(rig.target.threads()) == [rig.thread, child]
    rig.target.resume([ResumeAction(ResumeKind.CONTINUE, child)])
    assert rig.wait() == Stopped(child, Signal.SIGTRAP, SoftwareBreakpoint(), core=0)
    rig.target.set_pass_signals(frozenset({Signal.SIGCHLD}))
    rig.target.kill(child.pid)
    assert rig.go() == ProcessExited(rig.pid, 0)


def test_registers_written_at_a_vfork_do_not_end_the_wait_for_the_child() -> None:
    rig = Rig(programs.VFORKS)
    rig.target.set_fork_events(fork=True, vfork=True, exec_=True)
    assert isinstance(rig.go(), Stopped)
    values = rig.target.read_registers(rig.thread)
    rig.target.write_registers(rig.thread, [value for value in values if value is not None])
    pc = rig.register("rip")
    child = ThreadId(rig.pid + 1, rig.pid + 1)
    rig.target.resume([ResumeAction(ResumeKind.STEP, rig.thread), ResumeAction(ResumeKind.CONTINUE, child)])
    stop = rig.wait()  # the child vforks: the parent has not stepped
    assert isinstance(stop, Stopped)
    assert stop.thread == child
    rig.target.detach(rig.pid + 2)
    rig.target.detach(rig.pid + 1)
    rig.target.resume([ResumeAction(ResumeKind.STEP, rig.thread)])
    assert rig.wait() == Stopped(rig.thread, Signal.SIGTRAP, VforkDone(), core=0)
    rig.target.resume([ResumeAction(ResumeKind.STEP, rig.thread)])
    rig.wait()
    assert rig.register("rip") == pc
    assert rig.register("rax") == child.tid


def test_a_killed_process_is_not_heard_of_again() -> None:
    rig = Rig(programs.VFORKS)
    rig.target.set_fork_events(fork=True, vfork=True, exec_=True)
    child, grandchild = (ThreadId(rig.pid + n, rig.pid + n) for n in (1, 2))
    assert rig.go() == Stopped(rig.thread, Signal.SIGTRAP, Forked(ForkKind.VFORK, child), core=0)
    assert rig.go() == Stopped(child, Signal.SIGTRAP, Forked(ForkKind.VFORK, grandchild), core=0)
    rig.target.kill(grandchild.pid)
    rig.target.kill(child.pid)
    rig.target.set_pass_signals(frozenset({Signal.SIGCHLD}))
    assert rig.go() == Stopped(rig.thread, Signal.SIGTRAP, VforkDone(), core=0)
    assert rig.go() == ProcessExited(rig.pid, 0)


def test_a_clone_that_shares_memory_is_a_thread_to_the_debugger() -> None:
    rig = Rig(programs.CLONE)
    rig.break_at("both")
    stops = [rig.go(), rig.go()]
    threads = [ThreadId(rig.pid, rig.pid), ThreadId(rig.pid, rig.pid + 1)]
    assert stops == [Stopped(thread, Signal.SIGTRAP, SoftwareBreakpoint(), core=0) for thread in threads]
    assert list(rig.target.threads()) == threads
    assert rig.target.read_registers(threads[0]) != rig.target.read_registers(threads[1])
    assert rig.go() == ProcessExited(rig.pid, 0)
    assert not rig.target.is_alive(threads[1])


@pytest.mark.parametrize("end", ["kill", "detach"])
def test_kill_and_detach_take_such_a_clone_along(end: str) -> None:
    rig = Rig(programs.CLONE)
    rig.break_at("both")
    rig.go()
    getattr(rig.target, end)(rig.pid)
    for _ in range(10):
        if rig.target.run_beside() is None:
            break
    assert not any(group.tasks for group in rig.machine.kernel.groups.values())


@pytest.mark.parametrize("end", ["kill", "detach", "go"])
def test_a_stopped_process_that_another_kills_is_gone_at_once(end: str) -> None:
    rig = Rig(programs.FORK)
    rig.break_at("parent")
    rig.go()
    send_to_group(rig.task.group, Siginfo(GuestSignal.SIGKILL))
    assert rig.target.run_beside() is RUNNING  # the child, which is not debugged, runs
    assert not rig.target.is_alive(rig.thread)
    if end == "go":
        assert rig.go() == ProcessSignalled(rig.pid, Signal.SIGKILL)
    else:
        getattr(rig.target, end)(rig.pid)
        assert not rig.target.pending
    with pytest.raises(TargetError):
        rig.target.kill(rig.pid)


def test_launch() -> None:
    machine = Machine(power_on(by_name("x86_64"), Config()))
    target = LaunchingTarget(machine)
    target.attached()
    assert not target.status()
    from gdbstub.abilities import LaunchSettings

    with pytest.raises(TargetError, match="ENOENT"):
        target.launch(b"/nowhere/to/be/found", (), LaunchSettings())
    program = os.fsencode(programs.build(programs.LOOP.replace("COUNT", "5")))
    stop = target.launch(program, (b"x",), LaunchSettings())
    assert isinstance(stop, Stopped)
    target.resume([ResumeAction(ResumeKind.CONTINUE, EVERY)])
    result = target.run_slice()
    assert isinstance(result, Stop)
    assert isinstance(target.launch(b"", (), LaunchSettings()), Stopped)
