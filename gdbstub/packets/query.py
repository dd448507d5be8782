"""Negotiation and general queries (manual: "General Query Packets")."""

from __future__ import annotations

from dataclasses import fields, replace

from gdbstub.abilities import ForkEvents, SectionOffsets
from gdbstub.context import Context, ErrorText
from gdbstub.registry import OK, Reply, packet
from gdbstub.stop import NoResumed, StopFormat
from gdbstub.thread_id import ALL

# What the client may offer that changes how stops are spelled: feature -> field
_SPELLING = {name.name.replace("_", "-"): name.name for name in fields(StopFormat)}

_FORK_FEATURES = ("fork-events+", "vfork-events+", "exec-events+")


@packet("qSupported[:features]", advertises="multiprocess+;QStartNoAckMode+;no-resumed+;error-message+;vContSupported+")
def supported(c: Context, features: bytes = b"") -> Reply:
    """Negotiate.  A bare qSupported in mid-session changes nothing."""
    if features:
        offered = frozenset(item[:-1] for item in features.decode("ascii", "replace").split(";") if item.endswith("+"))
        c.client_features = offered
        c.form = replace(c.form, **{field: name in offered for name, field in _SPELLING.items()})
        c.error_text = ErrorText.GDB if "error-message" in offered else c.error_text
        if c.has(ForkEvents):
            form = c.form
            c.target.set_fork_events(fork=form.fork_events, vfork=form.vfork_events, exec_=form.exec_events)
    advertised = (*c.advertised, *_FORK_FEATURES) if c.has(ForkEvents) else c.advertised
    return f"PacketSize={c.packet_size:x};{';'.join(advertised)}".encode()


@packet("QStartNoAckMode")
def start_no_ack_mode(c: Context) -> Reply:
    """No acknowledgements from the next packet on."""
    c.no_ack = True
    return OK


@packet("vMustReplyEmpty")
def must_reply_empty(c: Context) -> Reply:
    """The client checks that unknown v packets get an empty reply."""
    return b""


@packet("?")
def stop_reason(c: Context) -> Reply:
    """Why the target stands still: the last stop; in non-stop the first of all stops, vStopped asks for the others."""
    events = list(c.target.status())
    if c.non_stop:
        c.notifications.clear()
        c.notifications.extend(events)
        return c.stop_reply(events[0]) if events else OK
    if not events:
        # nothing to debug: "W00" is what gdb understands
        return c.stop_reply(c.last_event) if c.last_event is not None else b"W00"
    first = events[0]
    return b"N" if isinstance(first, NoResumed) else c.stop_reply(first)


@packet("qAttached[:process]")
def attached(c: Context, process: int = ALL) -> Reply:
    """The server created the process: the client offers to kill it at the end."""
    return b"1" if process in getattr(c.target, "attached_processes", ()) else b"0"


@packet("qOffsets", needs=SectionOffsets)
def offsets(c: Context) -> Reply:
    """By how much the sections were moved."""
    text, data, bss = c.target.section_offsets(c.process)
    return b"Text=%x;Data=%x;Bss=%x" % (text, data, bss)


@packet("qSymbol:answer")
def symbol(c: Context, answer: bytes) -> Reply:
    """The client offers to look up symbols; none are wanted."""
    return OK


@packet("qTStatus")
def trace_status(c: Context) -> Reply:
    """No trace has been run: tracepoints are not supported (and not advertised)."""
    return b""


@packet("qGDBServerVersion")
def server_version(c: Context) -> Reply:
    """LLDB's question for a name."""
    return b"name:gdbstub;version:1;"


@packet("QEnableErrorStrings")
def enable_error_strings(c: Context) -> Reply:
    """LLDB: errors may carry text."""
    c.error_text = ErrorText.LLDB
    return OK


@packet("qEcho:text", advertises="qEcho+")
def echo(c: Context, text: bytes) -> Reply:
    """LLDB resynchronises with it."""
    return b"qEcho:" + text
