"""The texts of /proc/PID: each file is one function of a task.

Rule: one function a file, its format the kernel's to the blank.
Source: man 5 proc; fs/proc/array.c (stat, status, statm), fs/proc/base.c, fs/proc_namespace.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import SIG_DFL, SIG_IGN
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.files import procset
from emulator.kernel.files.virtual import Node
from emulator.kernel.tasks import Live, TaskState
from emulator.kernel.thread_group import RLIM_INFINITY

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description
    from emulator.kernel.tasks import Task

PAGE = 4096
TICK_NS = 10_000_000  # USER_HZ is 100

_STATES = {
    TaskState.NEW: "R (running)",
    TaskState.RUNNABLE: "R (running)",
    TaskState.BLOCKED: "S (sleeping)",
    TaskState.STOPPED: "T (stopped)",
    TaskState.EXITING: "R (running)",
    TaskState.ZOMBIE: "Z (zombie)",
    TaskState.DEAD: "X (dead)",
}


def state_of(task: Task) -> str:
    """The letter and the word."""
    if task.state in (TaskState.BLOCKED, TaskState.RUNNABLE) and task.group.stopped:
        return "T (stopped)"
    return _STATES[task.state]


def _alive(task: Task) -> bool:
    return isinstance(task.kernel.tasks.look_up(task.uid), Live) and task.space is not None


def _resident(task: Task) -> tuple[int, int]:
    """Pages present, and those of them that belong to files."""
    present = of_files = 0
    for vma in task.space.vmas:
        pages = task.space.table.resident(vma.start, vma.length)
        count = len(pages) - pages.count(0)
        present += count
        if not vma.anonymous:
            of_files += count
    return present, of_files


def _range(task: Task, start: int, end: int) -> bytes:
    if not _alive(task) or end <= start:
        return b""
    try:
        data: bytes = task.space.table.read_partial(start, end - start, force=True)
    except MemoryFault:
        return b""
    return data


def cmdline(task: Task) -> bytes:
    """Arguments as they are in memory, so that setproctitle shows."""
    if not _alive(task):
        return b""
    space = task.space
    if not space.arg_end:
        return b"".join(argument + b"\0" for argument in task.group.argv)
    data = _range(task, space.arg_start, space.arg_end)
    if data and data[-1:] != b"\0" and space.env_end:  # the title has overrun into the environment
        more = _range(task, space.arg_end, space.env_end)
        return data + more.split(b"\0", 1)[0]
    return data


def environ(task: Task) -> bytes:
    """The environment the program began with."""
    if not _alive(task):
        return b""
    space = task.space
    if not space.env_end:
        return b"".join(variable + b"\0" for variable in task.group.envp)
    return _range(task, space.env_start, space.env_end)


def auxv(task: Task) -> bytes:
    """The auxiliary vector."""
    return bytes(task.space.auxv) if _alive(task) else b""


def comm(task: Task) -> str:
    """The thread's name."""
    return task.name + "\n"


def maps(task: Task) -> str:
    """The mappings."""
    return str(task.space.maps_text()) if _alive(task) else ""


def smaps(task: Task) -> str:
    """The mappings in detail."""
    return str(task.space.maps_text(smaps=True)) if _alive(task) else ""


def smaps_rollup(task: Task) -> str:
    """The sum of smaps."""
    if not _alive(task):
        raise LinuxError(E.ESRCH)
    sums: dict[str, int] = {}
    for line in smaps(task).splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and key not in ("Size", "KernelPageSize", "MMUPageSize"):
            sums[key] = sums.get(key, 0) + int(words[0])
    vmas = list(task.space.vmas)
    first, last = (vmas[0].start, vmas[-1].end) if vmas else (0, 0)
    head = f"{first:08x}-{last:08x} ---p 00000000 00:00 0 ".ljust(73) + "[rollup]\n"
    return head + "".join(f"{key + ':':<16}{value:8} kB\n" for key, value in sums.items())


def _set_of(signals: list[int]) -> str:
    return f"{sum(1 << (signo - 1) for signo in signals):016x}"


def status(task: Task) -> str:
    """status: for people and for ps."""
    group, who = task.group, task.credentials
    actions = task.group.sighand.actions
    ignored = [signo for signo in range(1, 65) if actions[signo].handler == SIG_IGN]
    caught = [signo for signo in range(1, 65) if actions[signo].handler not in (SIG_IGN, SIG_DFL)]
    alive = _alive(task)
    tracer = task.trace.tracer.pid if task.trace is not None and getattr(task.trace, "tracer", None) else 0
    lines = [
        "Name:\t" + task.name.replace("\\", "\\\\").replace("\n", "\\n"),
        *([f"Umask:\t{task.fs.umask:04o}"] if alive else []),
        f"State:\t{state_of(task)}",
        f"Tgid:\t{group.tgid}",
        "Ngid:\t0",
        f"Pid:\t{task.tid}",
        f"PPid:\t{group.ppid}",
        f"TracerPid:\t{tracer}",
        f"Uid:\t{who.ruid}\t{who.euid}\t{who.suid}\t{who.fsuid}",
        f"Gid:\t{who.rgid}\t{who.egid}\t{who.sgid}\t{who.fsgid}",
        f"FDSize:\t{max(64, 1 << max(len(task.fds) - 1, 0).bit_length()) if alive else 0}",
        f"Groups:\t{''.join(f'{gid} ' for gid in who.groups)}",
        f"NStgid:\t{group.tgid}",
        f"NSpid:\t{task.tid}",
        f"NSpgid:\t{group.pgid}",
        f"NSsid:\t{group.sid}",
    ]
    if alive:
        lines += _memory_lines(task)
    lines += [
        f"Threads:\t{len(group.tasks)}",
        f"SigQ:\t{len(group.pending)}/{group.rlimits[11][0]}",
        f"SigPnd:\t{task.signals.pending.mask:016x}",
        f"ShdPnd:\t{group.pending.mask:016x}",
        f"SigBlk:\t{task.signals.mask:016x}",
        f"SigIgn:\t{_set_of(ignored)}",
        f"SigCgt:\t{_set_of(caught)}",
        f"CapInh:\t{who.cap_inheritable:016x}",
        f"CapPrm:\t{who.cap_permitted:016x}",
        f"CapEff:\t{who.cap_effective:016x}",
        f"CapBnd:\t{who.cap_bounding:016x}",
        f"CapAmb:\t{who.cap_ambient:016x}",
        f"NoNewPrivs:\t{int(who.no_new_privs)}",
        f"Seccomp:\t{task.seccomp.mode if task.seccomp is not None else 0}",
        f"Seccomp_filters:\t{len(task.seccomp.filters) if task.seccomp is not None else 0}",
        "Speculation_Store_Bypass:\tvulnerable",
        "SpeculationIndirectBranch:\talways enabled",
        "Cpus_allowed:\t1",
        "Cpus_allowed_list:\t0",
        "Mems_allowed:\t00000000,00000001",
        "Mems_allowed_list:\t0",
        f"voluntary_ctxt_switches:\t{task.voluntary_switches}",
        "nonvoluntary_ctxt_switches:\t0",
    ]
    return "\n".join(lines) + "\n"


def _memory_lines(task: Task) -> list[str]:
    space = task.space
    present, of_files = _resident(task)
    stack = sum(vma.length for vma in space.vmas if vma.start <= space.start_stack < vma.end)
    text = max(space.end_code - space.start_code, 0) // 1024
    rows = {
        "VmPeak": max(space.peak_pages, space.pages.total) * 4,
        "VmSize": space.pages.total * 4,
        "VmLck": space.pages.locked * 4,
        "VmPin": 0,
        "VmHWM": present * 4,
        "VmRSS": present * 4,
        "RssAnon": (present - of_files) * 4,
        "RssFile": of_files * 4,
        "RssShmem": 0,
        "VmData": space.pages.data * 4,
        "VmStk": stack // 1024,
        "VmExe": text,
        "VmLib": max(of_files * 4 - text, 0),
        "VmPTE": 8 + present // 512 * 4,
        "VmSwap": 0,
    }
    return [
        *(f"{key}:\t{value:8} kB" for key, value in rows.items()),
        "HugetlbPages:\t       0 kB",
        "CoreDumping:\t0",
        "THP_enabled:\t1",
        "untag_mask:\t0xffffffffffffffff",
    ]


def stat_line(task: Task) -> str:
    """stat: 52 fields."""
    group, alive = task.group, _alive(task)
    actions = group.sighand.actions
    ignored = sum(1 << (n - 1) for n in range(1, 32) if actions[n].handler == SIG_IGN)
    caught = sum(1 << (n - 1) for n in range(1, 32) if actions[n].handler not in (SIG_IGN, SIG_DFL))
    tty = group.session.tty
    usage, children = task.kernel.usage_of(group), group.child_usage
    space = task.space if alive else None
    nice = task.nice
    fields: list[object] = [
        task.tid, f"({task.name})", state_of(task)[0], group.ppid, group.pgid, group.sid,
        tty.stat().st_rdev if tty is not None else 0, group.session.foreground_pgid if tty is not None else -1,
        0x400000, usage.minor_faults, children.minor_faults, usage.major_faults, children.major_faults,
        usage.user_ns // TICK_NS, usage.system_ns // TICK_NS,
        children.user_ns // TICK_NS, children.system_ns // TICK_NS,
        20 + nice, nice, len(group.tasks), 0, group.start_ns // TICK_NS,
        space.pages.total * PAGE if space else 0, _resident(task)[0] if space else 0, group.rlimits[5][0],
        space.start_code if space else 0, space.end_code if space else 0, space.start_stack if space else 0,
        0, 0, task.signals.pending.mask & 0x7FFFFFFF, task.signals.mask & 0x7FFFFFFF, ignored, caught,
        1 if task.state is TaskState.BLOCKED else 0, 0, 0, group.exit_signal, 0, task.scheduling[1],
        task.scheduling[0], 0, 0, 0,
        space.start_data if space else 0, space.end_data if space else 0, space.start_brk if space else 0,
        space.arg_start if space else 0, space.arg_end if space else 0,
        space.env_start if space else 0, space.env_end if space else 0, 0 if alive else group.exit_status,
    ]  # fmt: skip
    return " ".join(map(str, fields)) + "\n"


def statm(task: Task) -> str:
    """Memory in pages."""
    if not _alive(task):
        return "0 0 0 0 0 0 0\n"
    space = task.space
    present, of_files = _resident(task)
    text = (space.end_code - space.start_code + PAGE - 1) // PAGE
    return f"{space.pages.total} {present} {of_files} {max(text, 0)} 0 {space.pages.data} 0\n"


_LIMITS = (
    ("Max cpu time", 0, "seconds"),
    ("Max file size", 1, "bytes"),
    ("Max data size", 2, "bytes"),
    ("Max stack size", 3, "bytes"),
    ("Max core file size", 4, "bytes"),
    ("Max resident set", 5, "bytes"),
    ("Max processes", 6, "processes"),
    ("Max open files", 7, "files"),
    ("Max locked memory", 8, "bytes"),
    ("Max address space", 9, "bytes"),
    ("Max file locks", 10, "locks"),
    ("Max pending signals", 11, "signals"),
    ("Max msgqueue size", 12, "bytes"),
    ("Max nice priority", 13, ""),
    ("Max realtime priority", 14, ""),
    ("Max realtime timeout", 15, "us"),
)


def limits(task: Task) -> str:
    """Resource limits."""
    text = f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"
    for name, number, unit in _LIMITS:
        soft, hard = ("unlimited" if v == RLIM_INFINITY else str(v) for v in task.group.rlimits[number])
        text += f"{name:<25} {soft:<20} {hard:<20} {unit:<10}\n" if unit else f"{name:<25} {soft:<20} {hard:<20}\n"
    return text


def mounts(task: Task) -> str:
    """The host's mounts, or the one root there is."""
    if not task.kernel.vfs.jailed:
        return task.kernel.host.read_file("/proc/thread-self/mounts").decode(errors="surrogateescape")
    return "rootfs / rootfs rw 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n"


def mountinfo(task: Task) -> str:
    """The same, in the longer form."""
    if not task.kernel.vfs.jailed:
        return task.kernel.host.read_file("/proc/thread-self/mountinfo").decode(errors="surrogateescape")
    return "1 1 0:1 / / rw - rootfs rootfs rw\n2 1 0:23 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n"


def wchan(task: Task) -> str:
    """Where it sleeps."""
    return task.wait.what if task.wait is not None else "0"


def syscall(task: Task) -> str:
    """The system call it is blocked in."""
    if task.state is not TaskState.BLOCKED:
        return "running\n"
    arguments = " ".join(f"{argument:#x}" for argument in task.call.args)
    return f"{task.call.number} {arguments} 0x0 0x0\n"


def fdinfo(task: Task, fd: int) -> str:
    """/proc/PID/fdinfo/FD."""
    try:
        description = task.fds.get_raw(fd)
        cloexec = task.fds.cloexec(fd)
    except LinuxError:
        raise LinuxError(E.ENOENT) from None
    flags = description.flags | (0o2000000 if cloexec else 0) | 0o100000
    try:
        inode = description.stat().st_ino
        position = description.position()
    except LinuxError:
        inode = position = 0
    mount = _mount_of(task, description)
    return f"pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{inode}\n{description.fdinfo()}"


def _mount_of(task: Task, description: Description) -> int:
    """The host's number for the mount a host file is on; 1 for the emulator's own files and in another root."""
    number = description.host_fd()
    if number is None or task.kernel.vfs.jailed:
        return 1
    text = task.kernel.host.read_file(f"/proc/self/fdinfo/{number}")
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(b"mnt_id:")), 1)


def net_directory(parent: Node) -> Node:
    """/proc/PID/net: the host's network is the guest's."""
    from emulator.kernel.files.procfs import HostTree  # procfs needs procpid, which needs this module

    return HostTree(b"net", parent, "/proc/self/net")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A row: how to make the text, its permissions, and what a write does."""

    make: Callable[[Task], str | bytes]
    mode: int = 0o444
    store: Callable[[Task, Task, bytes], None] | None = None  # of the writer, the task, the text


OF_MEMORY = frozenset((b"auxv", b"environ", b"maps", b"smaps", b"smaps_rollup"))  # for who may trace the process
FILES: dict[bytes, TextFile] = {
    b"auxv": TextFile(auxv, 0o400),
    b"cgroup": TextFile(lambda task: "0::/\n"),
    b"clear_refs": TextFile(lambda task: "", 0o200, procset.ignored),
    b"cmdline": TextFile(cmdline),
    b"comm": TextFile(comm, 0o644, procset.set_comm),
    b"coredump_filter": TextFile(
        lambda task: f"{task.group.coredump_filter:08x}\n", 0o644, procset.set_coredump_filter
    ),
    b"cpuset": TextFile(lambda task: "/\n"),
    b"environ": TextFile(environ, 0o400),
    b"gid_map": TextFile(lambda task: "         0          0 4294967295\n", 0o644),
    b"io": TextFile(
        lambda task: (
            "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
        ),
        0o400,
    ),
    b"limits": TextFile(limits),
    b"loginuid": TextFile(lambda task: "4294967295", 0o644),
    b"maps": TextFile(maps),
    b"mountinfo": TextFile(mountinfo),
    b"mounts": TextFile(mounts),
    b"oom_adj": TextFile(procset.oom_adj, 0o644, procset.set_oom_adj),
    b"oom_score": TextFile(procset.oom_score),
    b"oom_score_adj": TextFile(lambda task: f"{task.group.oom_score_adj}\n", 0o644, procset.set_oom_score_adj),
    b"personality": TextFile(lambda task: f"{task.personality:08x}\n", 0o400),
    b"sched": TextFile(lambda task: f"{task.name} ({task.tid}, #threads: {len(task.group.tasks)})\n", 0o644),
    b"schedstat": TextFile(lambda task: f"{task.user_ns + task.system_ns} 0 {task.voluntary_switches}\n"),
    b"sessionid": TextFile(lambda task: "4294967295"),
    b"setgroups": TextFile(lambda task: "allow\n", 0o644),
    b"smaps": TextFile(smaps),
    b"smaps_rollup": TextFile(smaps_rollup),
    b"stack": TextFile(lambda task: "", 0o400),
    b"stat": TextFile(stat_line),
    b"statm": TextFile(statm),
    b"status": TextFile(status),
    b"syscall": TextFile(syscall, 0o400),
    b"timerslack_ns": TextFile(lambda task: f"{task.timer_slack_ns}\n", 0o666, procset.set_timer_slack),
    b"uid_map": TextFile(lambda task: "         0          0 4294967295\n", 0o644),
    b"wchan": TextFile(wchan),
}
