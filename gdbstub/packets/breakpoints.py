"""Points: Z and z (manual: "Packets", Z0 .. Z4)."""

from __future__ import annotations

from enum import Enum

from gdbstub.abilities import BreakpointKind, Breakpoints, BreakpointSite, Watchpoints
from gdbstub.agent import Expression, compile_expression
from gdbstub.context import Context
from gdbstub.encoding import from_hex, hex_number
from gdbstub.errors import Malformed, Unsupported
from gdbstub.registry import OK, Reply, packet
from gdbstub.stop import WatchType


class PointType(Enum):
    """The digit after Z."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


_BREAK = {PointType.SOFTWARE: BreakpointKind.SOFTWARE, PointType.HARDWARE: BreakpointKind.HARDWARE}
_WATCH = {PointType.WRITE: WatchType.WRITE, PointType.READ: WatchType.READ, PointType.ACCESS: WatchType.ACCESS}


@packet(
    "Z type,addr,kind[;extra]",
    needs=Breakpoints,
    advertises="swbreak+;hwbreak+;ConditionalBreakpoints+;BreakpointCommands+",
)
def insert(c: Context, type: PointType, addr: int, kind: int, extra: bytes = b"") -> Reply:
    """Insert a point; `extra` is `X len,expr...` conditions and `cmds:persist,X len,expr...`."""
    conditions, _, commands = extra.partition(b"cmds:")
    checks = expressions(conditions.rstrip(b";"))
    if (breakpoint_kind := _BREAK.get(type)) is not None:
        actions = expressions(commands.partition(b",")[2]) if commands else ()
        c.target.insert_breakpoint(c.process, BreakpointSite(breakpoint_kind, addr, kind), checks, actions)
        return OK
    if not c.has(Watchpoints):
        raise Unsupported
    if not kind:
        raise Malformed("a watchpoint of no length")
    c.target.insert_watchpoint(c.process, _WATCH[type], addr, kind, checks)
    return OK


@packet("z type,addr,kind", needs=Breakpoints)
def remove(c: Context, type: PointType, addr: int, kind: int) -> Reply:
    """Remove a point."""
    if (breakpoint_kind := _BREAK.get(type)) is not None:
        c.target.remove_breakpoint(c.process, BreakpointSite(breakpoint_kind, addr, kind))
        return OK
    if not c.has(Watchpoints):
        raise Unsupported
    c.target.remove_watchpoint(c.process, _WATCH[type], addr, kind)
    return OK


@packet("qWatchpointSupportInfo[:unused]", needs=Watchpoints)
def watchpoint_support(c: Context, unused: bytes = b"") -> Reply:
    """LLDB: how many watchpoints; there is no limit of ours."""
    return b"num:1024;"


def expressions(text: bytes) -> tuple[Expression, ...]:
    """`X len,expr` one after the other."""
    found = []
    while text:
        if text[:1] != b"X":
            raise Malformed("an agent expression begins with X")
        length_text, comma, rest = text[1:].partition(b",")
        length = hex_number(length_text)
        if not comma or len(rest) < 2 * length:
            raise Malformed("an agent expression is cut off")
        found.append(compile_expression(from_hex(rest[: 2 * length])))
        text = rest[2 * length :].lstrip(b";")
    return tuple(found)
