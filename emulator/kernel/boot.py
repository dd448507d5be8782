"""Power on, and make the first process (or another one, for the debugger's vRun).

Rule: what Linux has before /sbin/init runs: a kernel with a file system, and a process whose descriptors 0, 1 and 2 are
the server's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.abi.errno import E
from emulator.abi.signals import SIG_IGN, SignalAction
from emulator.arch.model import Arch
from emulator.cpu.engine import Cpu
from emulator.cpu.mmu import Arena
from emulator.kernel import exec as execve
from emulator.kernel.credentials import Credentials
from emulator.kernel.fd_table import FdTable
from emulator.kernel.files.tty import HostTty
from emulator.kernel.host import Host
from emulator.kernel.image import FatalExec
from emulator.kernel.kernel import Config, Kernel
from emulator.kernel.signals import SigHand
from emulator.kernel.tasks import INIT_PID, Task, TaskState, TaskUid
from emulator.kernel.thread_group import RLIMIT_NOFILE, Rlimits, Session, ThreadGroup
from emulator.loader.elf import LoadError

_PAGE = 4096


def power_on(arch: Arch, config: Config) -> Kernel:
    """A machine without processes."""
    host = Host()
    if config.own_mounts:
        host.own_mounts()
    if config.seed is not None:
        host.seed(config.seed)
    limit = None if config.memory_limit is None else config.memory_limit // _PAGE
    arena = Arena(limit)
    cpu = Cpu(arch, arena, hooks=config.hooks)
    kernel = Kernel(arch, config, host, cpu, arena)
    kernel.tasks.init = _init(kernel)
    return kernel


def _init(kernel: Kernel) -> Task:
    """Process 1, the parent of orphans: root's, always asleep, deaf to signals, without memory or a program here."""
    sighand = SigHand()
    sighand.actions = [SignalAction(handler=SIG_IGN)] * len(sighand.actions)
    group = ThreadGroup(INIT_PID, None, INIT_PID, Session(INIT_PID), sighand)
    fds = FdTable(group.rlimits[RLIMIT_NOFILE][0])
    fs = kernel.vfs.initial_state(None, "/")
    space: Any = None
    task = Task(TaskUid(INIT_PID, 0), group, kernel, kernel.arch, space, space, fds, fs, Credentials.of(0, 0))
    task.name = "init"
    task.state = TaskState.BLOCKED
    group.leader = task
    group.tasks[INIT_PID] = task
    return task


def spawn(kernel: Kernel, path: bytes, argv: Sequence[bytes], envp: Sequence[bytes], *, cwd: str = "") -> Task:
    """A new process, a job of the login session, about to run `path`; raises LinuxError as execve(2) fails."""
    uid = kernel.tasks.allocate(kernel.ids_in_use())
    session = kernel.init_session
    group = ThreadGroup(uid.tid, None, uid.tid, session, SigHand())
    group.start_ns = kernel.clock.monotonic_ns()
    group.rlimits = Rlimits((soft, hard) for soft, hard in kernel.host.initial_limits)
    fds = FdTable(group.rlimits[RLIMIT_NOFILE][0])
    fs = kernel.vfs.initial_state(None, cwd)
    ids = kernel.host.ids()
    credentials = Credentials.of(*ids, *kernel.host.capabilities())
    task = Task(uid, group, kernel, kernel.arch, None, None, fds, fs, credentials)  # type: ignore[arg-type]
    for description in kernel.vfs.standard_files():
        fds.allocate(description)
        if session.tty is None and isinstance(description, HostTty):
            session.tty = description.retain()
    session.foreground_pgid = group.pgid
    program = execve.prepare(task, path, lambda: (list(argv), list(envp)))
    group.leader = task
    group.tasks[task.tid] = task
    kernel.vacate()
    kernel.current = task
    try:
        execve.enter(task, program, kernel.cpu)
    except FatalExec as error:  # a guest would die of SIGSEGV; a user wants to know why
        kernel.current = None
        raise LoadError(E.ENOEXEC, error.why) from None
    except BaseException:
        kernel.current = None
        raise
    kernel.groups[group.tgid] = group
    kernel.tasks.add(task)
    if kernel.first_group is None:
        kernel.first_group = group
    task.state = TaskState.RUNNABLE
    kernel.scheduler.enqueue(task)
    return task
