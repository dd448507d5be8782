"""Going on: vCont, c C s S, k, vKill, D (manual: "Packets")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from gdbstub.context import Context
from gdbstub.encoding import hex_number
from gdbstub.errors import Malformed, TargetError
from gdbstub.registry import OK, Farewell, Reply, Verdict, packet
from gdbstub.signals import Signal, parse_signal
from gdbstub.target import ResumeAction, ResumeKind
from gdbstub.thread_id import ANY, EVERY, SOME, ThreadId, parse_thread_id


@packet("vCont?")
def actions_supported(c: Context) -> Reply:
    """The actions vCont takes."""
    return b"vCont;c;C;s;S;t;r"


@packet("vCont;actions")
def resume(c: Context, actions: bytes) -> Reply:
    """Let threads go, each as the leftmost action that covers it says."""
    parsed, vague = parse_actions(actions)
    if vague:
        parsed = tuple(replace(action, pattern=_pattern(c, action.pattern)) for action in parsed)
    return c.resume(parsed)


@lru_cache(256)  # clients repeat themselves
def parse_actions(text: bytes) -> tuple[tuple[ResumeAction, ...], bool]:
    """The actions, and whether some pattern still has to be resolved."""
    actions = tuple(_action(item) for item in text.split(b";"))
    return actions, any(action.pattern == SOME or action.pattern.pid == ANY for action in actions)


def _action(text: bytes) -> ResumeAction:
    what, colon, thread = text.partition(b":")
    parse = _PARSERS.get(what[:1])
    if parse is None:
        raise Malformed(f"vCont action {what[:20]!r}")
    return parse(what[1:], parse_thread_id(thread) if colon else EVERY)


def _pattern(c: Context, thread: ThreadId) -> ThreadId:
    """`0` and a thread without its process become what they mean here."""
    if thread == SOME:
        return c.resolve(SOME)
    if thread.pid == ANY and thread.tid > 0:
        return c.resolve(thread)
    return thread


def _plain(kind: ResumeKind) -> Callable[[bytes, ThreadId], ResumeAction]:
    def parse(rest: bytes, pattern: ThreadId) -> ResumeAction:
        if rest:
            raise Malformed(f"{rest[:20]!r} behind a vCont action")
        return ResumeAction(kind, pattern)

    return parse


def _signalled(kind: ResumeKind) -> Callable[[bytes, ThreadId], ResumeAction]:
    return lambda rest, pattern: ResumeAction(kind, pattern, parse_signal(rest))


def _range(rest: bytes, pattern: ThreadId) -> ResumeAction:
    start, comma, end = rest.partition(b",")
    if not comma:
        raise Malformed("a range step without an end")
    return ResumeAction(ResumeKind.RANGE_STEP, pattern, Signal.SIG0, hex_number(start), hex_number(end))


_PARSERS: dict[bytes, Callable[[bytes, ThreadId], ResumeAction]] = {
    b"c": _plain(ResumeKind.CONTINUE),
    b"C": _signalled(ResumeKind.CONTINUE),
    b"s": _plain(ResumeKind.STEP),
    b"S": _signalled(ResumeKind.STEP),
    b"t": _plain(ResumeKind.STOP),
    b"r": _range,
}


@packet("c [addr]")
def continue_(c: Context, addr: bytes = b"") -> Reply:
    """Continue, at `addr` if given."""
    return _legacy(c, ResumeKind.CONTINUE, Signal.SIG0, addr)


@packet("s [addr]")
def step(c: Context, addr: bytes = b"") -> Reply:
    """Step, from `addr` if given."""
    return _legacy(c, ResumeKind.STEP, Signal.SIG0, addr)


@packet("C signal[;addr]")
def continue_with_signal(c: Context, signal: Signal, addr: bytes = b"") -> Reply:
    """Continue with a signal."""
    return _legacy(c, ResumeKind.CONTINUE, signal, addr)


@packet("S signal[;addr]")
def step_with_signal(c: Context, signal: Signal, addr: bytes = b"") -> Reply:
    """Step with a signal."""
    return _legacy(c, ResumeKind.STEP, signal, addr)


def _legacy(c: Context, kind: ResumeKind, signal: Signal, addr: bytes) -> Reply:
    """As gdbserver: the Hc thread alone; without one the current thread acts and all the others go on."""
    chosen = c.continuing
    thread = chosen if chosen.is_thread else c.resolve(SOME)
    if addr:
        description = c.target.description(thread.pid)
        order = "big" if description.big_endian else "little"
        size = description.sizes[description.pc]
        c.target.write_register(thread, description.pc, (hex_number(addr) % (1 << 8 * size)).to_bytes(size, order))
    actions = [ResumeAction(kind, thread, signal)]
    if not chosen.is_thread:
        actions.append(ResumeAction(ResumeKind.CONTINUE, EVERY))
    return c.resume(actions)


@packet("k [unused]")
def kill(c: Context, unused: bytes = b"") -> Reply:
    """Kill everything; there is no reply, and without extended mode the session is over."""
    _kill_all(c)
    return Verdict.ENDED


def _kill_all(c: Context) -> None:
    for process in c.processes():
        try:
            c.target.kill(process)
        except TargetError:
            continue  # it ended by itself


@packet("vKill;process")
def kill_process(c: Context, process: int) -> Reply:
    """Kill one process."""
    if process <= 0:
        raise TargetError(0x03, f"no process {process}")
    c.target.kill(process)
    _forget(c, process)
    return OK


@packet("D[;process]")
def detach(c: Context, process: int = ANY) -> Reply:
    """Let a process go, or all; without extended mode the session ends with the last one."""
    chosen = [process] if process else c.processes()
    for each in chosen:
        c.target.detach(each)
        _forget(c, each)
    return OK if c.extended or c.processes() else Farewell(OK)


def _forget(c: Context, process: int) -> None:
    c.last_event = None
    if c.general.pid == process:
        c.general = SOME
    if c.continuing.pid == process:
        c.continuing = SOME
    if c.current.pid == process:
        c.current = SOME
