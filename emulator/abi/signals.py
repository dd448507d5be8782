"""Signals: numbers, si_codes, sigaction flags, siginfo_t (<asm-generic/signal.h>, <asm-generic/siginfo.h>).

The numbers are those of x86, arm, aarch64 and riscv, which agree; signal(7) lists the others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import Enum, IntEnum, IntFlag, auto


class Signal(IntEnum):
    """Signal numbers."""

    SIGHUP = 1
    SIGINT = 2
    SIGQUIT = 3
    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGBUS = 7
    SIGFPE = 8
    SIGKILL = 9
    SIGUSR1 = 10
    SIGSEGV = 11
    SIGUSR2 = 12
    SIGPIPE = 13
    SIGALRM = 14
    SIGTERM = 15
    SIGSTKFLT = 16
    SIGCHLD = 17
    SIGCONT = 18
    SIGSTOP = 19
    SIGTSTP = 20
    SIGTTIN = 21
    SIGTTOU = 22
    SIGURG = 23
    SIGXCPU = 24
    SIGXFSZ = 25
    SIGVTALRM = 26
    SIGPROF = 27
    SIGWINCH = 28
    SIGIO = 29
    SIGPWR = 30
    SIGSYS = 31


SIGRTMIN = 32  # the kernel's; glibc keeps 32 and 33 to itself
SIGRTMAX = 64
NSIG = 64
SIGSET_SIZE = 8  # sigset_t of the kernel


class Sa(IntFlag):
    """sa_flags of sigaction(2)."""

    NOCLDSTOP = 0x1
    NOCLDWAIT = 0x2
    SIGINFO = 0x4
    UNSUPPORTED = 0x400
    EXPOSE_TAGBITS = 0x800
    RESTORER = 0x04000000
    ONSTACK = 0x08000000
    RESTART = 0x10000000
    NODEFER = 0x40000000
    RESETHAND = 0x80000000


SIG_DFL = 0
SIG_IGN = 1
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2

SS_ONSTACK = 1
SS_DISABLE = 2
SS_AUTODISARM = 1 << 31
MINSIGSTKSZ = 2048

# si_code: where a signal comes from.
SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_TKILL = 0, 0x80, -1, -2, -3, -4, -5, -6
SI_DETHREAD, SI_ASYNCNL = -7, -60
ILL_ILLOPC, ILL_ILLOPN, ILL_ILLADR, ILL_ILLTRP, ILL_PRVOPC, ILL_PRVREG, ILL_COPROC, ILL_BADSTK = range(1, 9)
FPE_INTDIV, FPE_INTOVF, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV, FPE_FLTSUB = range(1, 9)
SEGV_MAPERR, SEGV_ACCERR, SEGV_BNDERR, SEGV_PKUERR = 1, 2, 3, 4
BUS_ADRALN, BUS_ADRERR, BUS_OBJERR, BUS_MCEERR_AR, BUS_MCEERR_AO = 1, 2, 3, 4, 5
TRAP_BRKPT, TRAP_TRACE, TRAP_BRANCH, TRAP_HWBKPT, TRAP_UNK, TRAP_PERF = 1, 2, 3, 4, 5, 6
CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 3, 4, 5, 6
POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = 1, 2, 3, 4, 5, 6
SYS_SECCOMP, SYS_USER_DISPATCH = 1, 2


@dataclass(frozen=True, slots=True)
class SignalAction:
    """A disposition: struct sigaction as the kernel keeps it."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


@dataclass(frozen=True, slots=True)
class AltStack:
    """The alternate signal stack: stack_t."""

    sp: int = 0
    flags: int = SS_DISABLE
    size: int = 0

    def contains(self, sp: int) -> bool:
        """Tell whether `sp` lies on this stack (__on_sig_stack)."""
        return self.sp < sp <= self.sp + self.size

    def holds(self, sp: int) -> bool:
        """Tell whether a task with this `sp` runs on this stack; never, if it disarms itself (on_sig_stack)."""
        return not self.flags & (SS_DISABLE | SS_AUTODISARM) and self.contains(sp)

    def top_for(self, sp: int, flags: int) -> int:
        """Return where a frame grows down from: here if the action has SA_ONSTACK and `sp` is elsewhere, else `sp`."""
        usable = flags & Sa.ONSTACK and self.size and not self.flags & SS_DISABLE
        return self.sp + self.size if usable and not self.holds(sp) else sp

    def pack(self, bits: int = 64) -> bytes:
        """Lay out stack_t."""
        return struct.pack("<QiIQ", self.sp, _s32(self.flags), 0, self.size) if bits == 64 else struct.pack(
            "<IiI", self.sp, _s32(self.flags), self.size
        )  # fmt: skip

    def saved(self) -> AltStack:
        """As a signal frame holds it (__save_altstack): without one, a task's flags are still zero."""
        return self if self.size else AltStack(flags=0)

    @classmethod
    def restored(cls, data: bytes) -> AltStack:
        """Read a signal frame's."""
        stack = cls.unpack(data)
        return stack if stack.size else cls()

    @classmethod
    def unpack(cls, data: bytes, bits: int = 64) -> AltStack:
        """Read stack_t."""
        sp, flags, size = struct.unpack("<QI4xQ" if bits == 64 else "<III", data)
        return cls(sp, flags, size)


def _s32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class SiginfoLayout(Enum):
    """Which member of siginfo_t's union is valid (kernel/signal.c, siginfo_layout)."""

    KILL = auto()
    TIMER = auto()
    POLL = auto()
    FAULT = auto()
    FAULT_MCEERR = auto()
    CHLD = auto()
    RT = auto()
    SYS = auto()


_FAULT_SIGNALS = {Signal.SIGILL, Signal.SIGFPE, Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGTRAP}


def siginfo_layout(signo: int, code: int) -> SiginfoLayout:
    """Choose the union member by signal number and si_code."""
    if SI_USER < code < SI_KERNEL:
        match signo:
            case Signal.SIGCHLD:
                return SiginfoLayout.CHLD
            case Signal.SIGIO:
                return SiginfoLayout.POLL
            case Signal.SIGSYS:
                return SiginfoLayout.SYS
            case Signal.SIGBUS if code in (BUS_MCEERR_AR, BUS_MCEERR_AO):
                return SiginfoLayout.FAULT_MCEERR
            case _ if signo in _FAULT_SIGNALS:
                return SiginfoLayout.FAULT
        return SiginfoLayout.POLL if code <= 6 else SiginfoLayout.KILL  # NSIGPOLL: F_SETSIG's signals
    if code == SI_TIMER:
        return SiginfoLayout.TIMER
    if code == SI_SIGIO:
        return SiginfoLayout.POLL
    return SiginfoLayout.RT if code < 0 else SiginfoLayout.KILL


SIGINFO_SIZE = 128


@dataclass(frozen=True, slots=True)
class Siginfo:
    """siginfo_t, every member of the union by name; `raw` keeps bytes a guest queued itself (rt_sigqueueinfo)."""

    signo: int
    code: int = SI_USER
    errno: int = 0
    pid: int = 0
    uid: int = 0
    status: int = 0
    utime: int = 0
    stime: int = 0
    value: int = 0  # sigval, as an unsigned pointer
    addr: int = 0
    addr_lsb: int = 0
    timer_id: int = 0
    overrun: int = 0
    band: int = 0
    fd: int = 0
    call_addr: int = 0
    syscall: int = 0
    arch: int = 0
    raw: bytes = b""

    @property
    def layout(self) -> SiginfoLayout:
        """The valid union member."""
        return siginfo_layout(self.signo, self.code)

    def pack(self, bits: int = 64, order: str = "<") -> bytes:
        """Lay out the 128 bytes a handler sees."""
        if self.raw:
            return struct.pack(order + "iii", self.signo, self.errno, self.code) + self.raw[12:SIGINFO_SIZE].ljust(
                SIGINFO_SIZE - 12, b"\0"
            )
        pointer, pad = ("Q", "4x") if bits == 64 else ("I", "")
        long = pointer.lower()
        mask = (1 << bits) - 1
        head = struct.pack(order + "iii" + pad, self.signo, self.errno, self.code)
        uid = self.uid & 0xFFFFFFFF
        match self.layout:
            case SiginfoLayout.KILL:
                body = struct.pack(order + "iI", self.pid, uid)
            case SiginfoLayout.RT:
                body = struct.pack(order + "iI" + pointer, self.pid, uid, self.value & mask)
            case SiginfoLayout.TIMER:
                body = struct.pack(order + "ii" + pointer, self.timer_id, self.overrun, self.value & mask)
            case SiginfoLayout.CHLD:
                body = struct.pack(order + "iIi" + pad + long * 2, self.pid, uid, self.status, self.utime, self.stime)
            case SiginfoLayout.FAULT | SiginfoLayout.FAULT_MCEERR:
                body = struct.pack(order + pointer + "h", self.addr & mask, self.addr_lsb)
            case SiginfoLayout.POLL:
                body = struct.pack(order + long + "i", self.band, self.fd)
            case SiginfoLayout.SYS:
                body = struct.pack(order + pointer + "iI", self.call_addr & mask, self.syscall, self.arch)
        return (head + body).ljust(SIGINFO_SIZE, b"\0")

    @classmethod
    def unpack(cls, data: bytes, bits: int = 64, order: str = "<") -> Siginfo:
        """Read 128 bytes (a debugger's X:siginfo, PTRACE_SETSIGINFO, rt_sigqueueinfo); keeps them as `raw`."""
        data = data[:SIGINFO_SIZE].ljust(SIGINFO_SIZE, b"\0")
        signo, errno, code = struct.unpack_from(order + "iii", data)
        info = cls(signo, code, errno, raw=data)
        pointer, pad, at = ("Q", "4x", 16) if bits == 64 else ("I", "", 12)
        long = pointer.lower()

        def fields(format_: str) -> tuple[int, ...]:
            return struct.unpack_from(order + format_, data, at)

        match info.layout:
            case SiginfoLayout.KILL:
                pid, uid = fields("iI")
                return replace(info, pid=pid, uid=uid)
            case SiginfoLayout.RT:
                pid, uid, value = fields("iI" + pointer)
                return replace(info, pid=pid, uid=uid, value=value)
            case SiginfoLayout.TIMER:
                timer_id, overrun, value = fields("ii" + pointer)
                return replace(info, timer_id=timer_id, overrun=overrun, value=value)
            case SiginfoLayout.CHLD:
                pid, uid, status, utime, stime = fields("iIi" + pad + long * 2)
                return replace(info, pid=pid, uid=uid, status=status, utime=utime, stime=stime)
            case SiginfoLayout.FAULT | SiginfoLayout.FAULT_MCEERR:
                addr, lsb = fields(pointer + "h")
                return replace(info, addr=addr, addr_lsb=lsb)
            case SiginfoLayout.POLL:
                band, fd = fields(long + "i")
                return replace(info, band=band, fd=fd)
            case SiginfoLayout.SYS:
                call_addr, syscall, arch = fields(pointer + "iI")
                return replace(info, call_addr=call_addr, syscall=syscall, arch=arch)


# Default actions (signal(7)); everything not listed terminates.
CORE_SIGNALS = frozenset({
    Signal.SIGQUIT, Signal.SIGILL, Signal.SIGTRAP, Signal.SIGABRT, Signal.SIGBUS, Signal.SIGFPE, Signal.SIGSEGV,
    Signal.SIGXCPU, Signal.SIGXFSZ, Signal.SIGSYS,
})  # fmt: skip
STOP_SIGNALS = frozenset({Signal.SIGSTOP, Signal.SIGTSTP, Signal.SIGTTIN, Signal.SIGTTOU})
IGNORED_SIGNALS = frozenset({Signal.SIGCHLD, Signal.SIGCONT, Signal.SIGURG, Signal.SIGWINCH})
UNBLOCKABLE = frozenset({Signal.SIGKILL, Signal.SIGSTOP})


def signal_bit(signo: int) -> int:
    """Return the bit of `signo` in a sigset."""
    return 1 << (signo - 1)


UNBLOCKABLE_MASK = signal_bit(Signal.SIGKILL) | signal_bit(Signal.SIGSTOP)


def signal_name(signo: int) -> str:
    """Return "SIGSEGV", "SIGRT_2" as strace prints, or the number."""
    if signo in Signal._value2member_map_:
        return Signal(signo).name
    if SIGRTMIN <= signo <= SIGRTMAX:
        return f"SIGRT_{signo - SIGRTMIN}"
    return str(signo)
