"""Terminals of the host, with the guest's own job control on top.

Rule: termios, window size and data are the host terminal's; sessions and foreground groups are the guest's, because
its process ids are not the host's.
Sources: man 2 ioctl_tty, man 4 tty_ioctl, drivers/tty/tty_jobctrl.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.signals import SI_KERNEL, SIG_IGN, Siginfo, Signal
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description, ReadBuffers, WriteBuffers, gather
from emulator.kernel.files.streams import HostStream

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.paths import Walker
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import Session

TCGETS, TCSETS, TCSETSW, TCSETSF = 0x5401, 0x5402, 0x5403, 0x5404
TCGETA, TCSETA, TCSETAW, TCSETAF = 0x5405, 0x5406, 0x5407, 0x5408
TCSBRK, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL, TIOCSCTTY = 0x5409, 0x540A, 0x540B, 0x540C, 0x540D, 0x540E
TIOCGSOFTCAR, TIOCSSOFTCAR, TIOCPKT, TIOCGETD = 0x5419, 0x541A, 0x5420, 0x5424
TCSBRKP, TIOCSBRK, TIOCCBRK, TIOCSIG = 0x5425, 0x5427, 0x5428, 0x40045436
TIOCGLCKTRMIOS, TIOCSLCKTRMIOS, TIOCGPKT, TIOCGEXCL = 0x5456, 0x5457, 0x80045438, 0x80045440
TIOCGPGRP, TIOCSPGRP, TIOCOUTQ = 0x540F, 0x5410, 0x5411
TIOCGWINSZ, TIOCSWINSZ, FIONREAD, TIOCNOTTY, TIOCGSID = 0x5413, 0x5414, 0x541B, 0x5422, 0x5429
TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 = 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D
TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK, TIOCGPTPEER, TIOCGDEV = 0x80045430, 0x40045431, 0x80045439, 0x5441, 0x80045432
TERMIOS_SIZE = 36  # struct termios of asm-generic: 4 flags, line, 19 control characters
TERMIOS2_SIZE = 44
TERMIO_SIZE = 18  # struct termio of System V

_READS = {TCGETS: TERMIOS_SIZE, TCGETS2: TERMIOS2_SIZE, TIOCGWINSZ: 8, TIOCOUTQ: 4, TIOCGPTN: 4, TIOCGPTLCK: 4,
          TIOCGDEV: 4, TCGETA: TERMIO_SIZE, TIOCGSOFTCAR: 4, TIOCGETD: 4, TIOCGLCKTRMIOS: TERMIOS_SIZE, TIOCGPKT: 4,
          TIOCGEXCL: 4}  # fmt: skip
_WRITES = {
    TCSETS: TERMIOS_SIZE, TCSETSW: TERMIOS_SIZE, TCSETSF: TERMIOS_SIZE,
    TCSETS2: TERMIOS2_SIZE, TCSETSW2: TERMIOS2_SIZE, TCSETSF2: TERMIOS2_SIZE,
    TCSETA: TERMIO_SIZE, TCSETAW: TERMIO_SIZE, TCSETAF: TERMIO_SIZE,
    TIOCSWINSZ: 8, TIOCSPTLCK: 4, TIOCSSOFTCAR: 4, TIOCPKT: 4, TIOCSLCKTRMIOS: TERMIOS_SIZE,
}  # fmt: skip
_CHANGES = frozenset((TCSETS, TCSETSW, TCSETSF, TCSETS2, TCSETSW2, TCSETSF2, TCSETA, TCSETAW, TCSETAF, TIOCSWINSZ))
_VALUES = frozenset((TCSBRK, TCSBRKP, TIOCSBRK, TIOCCBRK, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL))


def session_ioctl(t: Task, tty: Description, request: int, argument: int) -> int | None:
    """The job-control part of ioctl_tty(2), the same for every terminal; None: not one of these."""
    session: Session = t.group.session
    mine = isinstance(session.tty, Description) and same_terminal(session.tty, tty)
    match request:
        case _ if request == TIOCGPGRP:
            if not mine:
                raise LinuxError(E.ENOTTY)
            t.memory.write_u32(argument, session.foreground_pgid)
        case _ if request == TIOCSPGRP:
            if not mine:
                raise LinuxError(E.ENOTTY)
            pgid = t.memory.read_s32(argument)
            if pgid < 0:
                raise LinuxError(E.EINVAL)
            stop_background(t, tty, changing=True)
            members = list(t.kernel.members(pgid))
            if not members:
                raise LinuxError(E.ESRCH)
            if members[0].session is not session:
                raise LinuxError(E.EPERM)
            session.foreground_pgid = pgid
        case _ if request == TIOCGSID:
            if not mine:
                raise LinuxError(E.ENOTTY)
            t.memory.write_u32(argument, session.sid)
        case _ if request == TIOCSCTTY:
            if session.sid != t.group.tgid:
                raise LinuxError(E.EPERM)
            if session.tty is not None and not mine:
                raise LinuxError(E.EPERM)
            take_terminal(t, tty)
        case _ if request == TIOCNOTTY:
            if not mine:
                raise LinuxError(E.ENOTTY)
            if session.sid == t.group.tgid:
                session.drop_terminal()
                t.kernel.send_to_pgrp(session.foreground_pgid, Siginfo(Signal.SIGHUP, SI_KERNEL))
                t.kernel.send_to_pgrp(session.foreground_pgid, Siginfo(Signal.SIGCONT, SI_KERNEL))
                session.foreground_pgid = 0
        case _:
            return None
    return 0


def take_terminal(t: Task, tty: Description) -> None:
    """Make the terminal the controlling one of the task's session."""
    session = t.group.session
    kept = tty.retain()  # for as long as the session: its number can still be opened as /dev/tty
    session.drop_terminal()
    session.tty = kept
    session.foreground_pgid = t.group.pgid


def same_terminal(one: Description, other: Description) -> bool:
    """Do both descriptions lead to one terminal?"""
    return one is other or one.stat().st_rdev == other.stat().st_rdev


def stop_background(t: Task, tty: Description, *, changing: bool = False, reading: bool = False) -> None:
    """SIGTTIN or SIGTTOU to a background process group (__tty_check_change, job_control)."""
    session = t.group.session
    if not isinstance(session.tty, Description) or not session.foreground_pgid:
        return
    if t.group.pgid == session.foreground_pgid or not same_terminal(session.tty, tty):
        return
    signo = Signal.SIGTTIN if reading else Signal.SIGTTOU
    ignored = t.group.sighand.actions[signo].handler == SIG_IGN or t.signals.mask >> (signo - 1) & 1
    if ignored:
        if reading:
            raise LinuxError(E.EIO)
        return
    if t.kernel.orphaned(t.group.pgid):
        raise LinuxError(E.EIO)
    t.kernel.send_to_pgrp(t.group.pgid, Siginfo(signo, SI_KERNEL))
    raise LinuxError(E.ERESTARTSYS)


class HostTty(HostStream):
    """A terminal device of the host."""

    __slots__ = ()

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        stop_background(t, self, reading=True)
        return super().read(t, buffers)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        return super().write(t, buffers)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        done = session_ioctl(t, self, request, argument)
        if done is not None:
            return done
        if request in _READS:
            result = self.host.ioctl(self._fd, request, bytes(_READS[request]))
            t.memory.write(argument, result if isinstance(result, bytes) else b"")
            return 0
        if request in _WRITES:
            data = t.memory.read(argument, _WRITES[request])
            if request in _CHANGES:
                stop_background(t, self, changing=True)
            self.host.ioctl(self._fd, request, data)
            return 0
        if request in _VALUES:
            result = self.host.ioctl(self._fd, request, argument & 0x7FFFFFFF)
            return result if isinstance(result, int) else 0
        if request == TIOCGPTPEER:
            fd = self.host.ioctl(self._fd, request, (argument | O.CLOEXEC | O.NONBLOCK | O.NOCTTY) & 0x7FFFFFFF)
            peer = HostTty(self.walker, int(fd), argument)
            return t.fds.allocate(peer, cloexec=bool(argument & O.CLOEXEC))
        return super().ioctl(t, request, argument)

    def reopen(self, t: Task, flags: int) -> Description:
        return t.kernel.vfs.reopen_host(t, self._fd, flags)

    def readlink_text(self) -> bytes:
        """The name is the same in every root."""
        path = self.host.fd_path(self._fd)
        return path if path.startswith((b"/dev/pts/", b"/dev/ptmx", b"/dev/tty")) else super().readlink_text()


def ptys_of(kernel: Kernel) -> set[int]:
    """The numbers of the ptys whose masters are the guest's."""
    found: set[int] = kernel.extensions.setdefault("ptys", set())
    return found


VINTR, VQUIT, VSUSP, ISIG = 0, 1, 10, 1
_CONTROL = 17  # offset of c_cc in struct termios


class PtyMaster(HostTty):
    """The master of a host pty: the line discipline is the host's, the signals of its keys are ours to send.

    The host knows no session on the slave, because sessions are the guest's.
    """

    __slots__ = ("_kernel", "number")

    def __init__(self, t: Task, walker: Walker, fd: int, flags: int) -> None:
        super().__init__(walker, fd, flags)
        self._kernel = t.kernel
        number = self.host.ioctl(fd, TIOCGPTN, bytes(4))
        self.number = int.from_bytes(number, "little") if isinstance(number, bytes) else -1
        ptys_of(t.kernel).add(self.number)

    def close(self) -> None:
        ptys_of(self._kernel).discard(self.number)
        for session in self._sessions():
            for signo in (Signal.SIGHUP, Signal.SIGCONT):
                leader = self._kernel.groups.get(session.sid)
                if leader is not None and leader.pgid != session.foreground_pgid and not leader.zombie:
                    signals.send_to_group(leader, Siginfo(signo, SI_KERNEL))
                if session.foreground_pgid:
                    self._kernel.send_to_pgrp(session.foreground_pgid, Siginfo(signo, SI_KERNEL))
        super().close()

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        count = super().write(t, buffers)
        self._keys(gather(buffers, count))
        return count

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        if request == TIOCSIG:
            if argument not in (Signal.SIGINT, Signal.SIGQUIT, Signal.SIGTSTP):
                raise LinuxError(E.EINVAL)
            self._signal(Signal(argument))
            return 0
        result = super().ioctl(t, request, argument)
        if request == TIOCSWINSZ:
            self._signal(Signal.SIGWINCH)
        return result

    def _keys(self, data: bytes) -> None:
        """isig(): what the line discipline would do if it knew whom to tell."""
        try:
            termios = self.host.ioctl(self._fd, TCGETS, bytes(TERMIOS_SIZE))
        except LinuxError:
            return
        if not isinstance(termios, bytes) or not int.from_bytes(termios[12:16], "little") & ISIG:
            return
        control = termios[_CONTROL:]
        meaning = {
            control[VINTR]: Signal.SIGINT,
            control[VQUIT]: Signal.SIGQUIT,
            control[VSUSP]: Signal.SIGTSTP,
        }
        meaning.pop(0, None)  # _POSIX_VDISABLE
        for byte in data:
            if byte in meaning:
                self._signal(meaning[byte])

    def _signal(self, signo: Signal) -> None:
        for session in self._sessions():
            if session.foreground_pgid:
                self._kernel.send_to_pgrp(session.foreground_pgid, Siginfo(signo, SI_KERNEL))

    def _sessions(self) -> list[Session]:
        """Sessions whose controlling terminal is the slave."""
        slave = 136 << 8 | self.number
        sessions = {id(group.session): group.session for group in self._kernel.groups.values()}
        return [
            session
            for session in sessions.values()
            if isinstance(session.tty, Description) and session.tty.stat().st_rdev == slave
        ]
