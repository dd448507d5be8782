"""LLDB's additions (lldb: docs/resources/lldbgdbremote.md)."""

from __future__ import annotations

import json

from gdbstub.abilities import MemoryRegions, ProcessDetails, ProcessInformation, ThreadInformation
from gdbstub.context import Context
from gdbstub.encoding import escape, to_hex
from gdbstub.errors import TargetError
from gdbstub.registry import OK, Reply, packet
from gdbstub.signals import Signal
from gdbstub.stop import HardwareBreakpoint, SoftwareBreakpoint, StopEvent, Stopped, Watchpoint
from gdbstub.tdesc import RegisterDescription
from gdbstub.thread_id import ThreadId

_TOP = 1 << 64


@packet("QThreadSuffixSupported")
def thread_suffix(c: Context) -> Reply:
    """Register packets may name their thread from now on."""
    c.thread_suffix = True
    return OK


@packet("QListThreadsInStopReply")
def list_threads(c: Context) -> Reply:
    """Stop replies hold all threads from now on."""
    c.threads_in_stop_reply = True
    return OK


def _hex(text: str) -> str:
    return to_hex(text.encode(errors="replace")).decode()


def _common(details: ProcessDetails) -> str:
    endian = "big" if details.big_endian else "little"
    return f"triple:{_hex(details.triple)};endian:{endian};ptrsize:{details.pointer_size};"


@packet("qHostInfo", needs=ProcessInformation)
def host_info(c: Context) -> Reply:
    """What kind of machine this is."""
    return (_common(c.target.process_details(c.process)) + "watchpoint_exceptions_received:after;").encode()


@packet("qProcessInfo", needs=ProcessInformation)
def process_info(c: Context) -> Reply:
    """The process; every number in hex."""
    if not (process := c.process):
        raise TargetError(0x03, "no process")
    details = c.target.process_details(process)
    return (
        f"pid:{details.pid:x};parent-pid:{details.parent_pid:x};real-uid:{details.user:x};real-gid:{details.group:x};"
        f"effective-uid:{details.user:x};effective-gid:{details.group:x};ostype:{details.os_type};{_common(details)}"
    ).encode()


@packet("qRegisterInfo regnum")
def register_info(c: Context, regnum: int) -> Reply:
    """One register of the description; an error ends the list."""
    description = c.target.description(c.process)
    if regnum >= len(description.registers):
        raise TargetError(0x45, "no more registers")
    register = description.registers[regnum]
    offset = sum(description.sizes[:regnum])
    encoding, form = _shape(register)
    text = f"name:{register.name};"
    if register.alternative_name:
        text += f"alt-name:{register.alternative_name};"
    text += f"bitsize:{description.sizes[regnum] * 8};offset:{offset};encoding:{encoding};format:{form};"
    text += f"set:{register.group or 'General Purpose Registers'};"
    if register.dwarf is not None:
        text += f"ehframe:{register.dwarf};dwarf:{register.dwarf};"
    if register.generic:
        text += f"generic:{register.generic};"
    return text.encode()


def _shape(register: RegisterDescription) -> tuple[str, str]:
    if register.type in ("ieee_single", "ieee_double", "i387_ext"):
        return "ieee754", "float"
    if register.bits > 64:
        return "vector", "vector-uint8"
    return "uint", "hex"


@packet("qMemoryRegionInfo[:addr]", needs=MemoryRegions)
def memory_region(c: Context, addr: int = -1) -> Reply:
    """The mapping, or the gap, that holds an address; without one LLDB asks whether the packet exists."""
    if addr < 0:
        return OK
    previous_end = 0
    for region in c.target.memory_regions(c.process):
        if addr < region.start:
            return b"start:%x;size:%x;" % (previous_end, region.start - previous_end)
        if addr < region.end:
            rights = "r" * region.readable + "w" * region.writable + "x" * region.executable
            name = f"name:{_hex(region.name)};" if region.name else ""
            return f"start:{region.start:x};size:{region.end - region.start:x};permissions:{rights};{name}".encode()
        previous_end = region.end
    return b"start:%x;size:%x;" % (previous_end, _TOP - previous_end)


def _event_of(c: Context, thread: ThreadId) -> Stopped:
    events: list[StopEvent] = [*c.target.status()]
    if c.last_event is not None:
        events.insert(0, c.last_event)
    for event in events:
        if isinstance(event, Stopped) and event.thread == thread:
            return event
    return Stopped(thread, Signal.SIG0)


@packet("qThreadStopInfo thread-id")
def thread_stop_info(c: Context, thread_id: ThreadId) -> Reply:
    """Why a thread stands still, as a stop reply."""
    return c.spell(_event_of(c, c.live(thread_id)))


@packet("jThreadsInfo", needs=ThreadInformation)
def threads_info(c: Context) -> Reply:
    """All threads with their reasons and most wanted registers, as JSON."""
    out = []
    for thread in c.introduced():
        try:
            out.append(_thread_json(c, thread))
        except TargetError:
            continue
    return escape(json.dumps(out, separators=(",", ":")).encode())


def _thread_json(c: Context, thread: ThreadId) -> dict[str, object]:
    event = _event_of(c, thread)
    entry: dict[str, object] = {"tid": thread.tid}
    details = c.target.thread_details(thread)
    if details.name:
        entry["name"] = details.name
    if event.signal:
        entry["signal"] = int(event.signal)
    if (reason := _reason(event)) is not None:
        entry["reason"] = reason
    registers = {}
    for regnum in c.target.description(thread.pid).expedited:
        value = c.target.read_register(thread, regnum)
        if value is not None:
            registers[str(regnum)] = value.hex()
    entry["registers"] = registers
    return entry


def _reason(event: Stopped) -> str | None:
    match event.reason:
        case SoftwareBreakpoint() | HardwareBreakpoint():
            return "breakpoint"
        case Watchpoint():
            return "watchpoint"
        case _:
            return {Signal.SIG0: None, Signal.SIGTRAP: "trace"}.get(event.signal, "signal")
