"""Threads: H T qC, lists, details, events, TLS (manual: "Packets", "General Query Packets")."""

from __future__ import annotations

from gdbstub.abilities import ThreadEvents, ThreadInformation, ThreadLocalStorage, ThreadOptions
from gdbstub.context import Context
from gdbstub.encoding import hex_number, to_hex
from gdbstub.errors import Malformed
from gdbstub.registry import OK, Reply, packet
from gdbstub.thread_id import SOME, ThreadId, parse_thread_id

_LIST_LENGTH = 1024  # threads in one reply


def _select(c: Context, thread: ThreadId) -> ThreadId:
    if thread.pid <= 0 and thread.tid <= 0:
        return SOME if thread == SOME else thread
    return c.live(thread)


@packet("Hg thread-id")
def select_general(c: Context, thread_id: ThreadId) -> Reply:
    """Choose the thread that registers and memory mean."""
    c.general = _select(c, thread_id)
    return OK


@packet("Hc thread-id")
def select_continue(c: Context, thread_id: ThreadId) -> Reply:
    """Choose the thread that c and s mean."""
    c.continuing = _select(c, thread_id)
    return OK


@packet("T thread-id")
def is_alive(c: Context, thread_id: ThreadId) -> Reply:
    """Whether a thread is live."""
    c.live(thread_id)
    return OK


@packet("qC")
def current_thread(c: Context) -> Reply:
    """The current thread."""
    return b"QC" + c.format_thread(c.thread)


@packet("qfThreadInfo")
def first_threads(c: Context) -> Reply:
    """The beginning of the list of live threads."""
    c.thread_list = list(c.introduced())
    return next_threads(c)


@packet("qsThreadInfo")
def next_threads(c: Context) -> Reply:
    """The rest of the list."""
    if not c.thread_list:
        return b"l"
    some, c.thread_list = c.thread_list[:_LIST_LENGTH], c.thread_list[_LIST_LENGTH:]
    return b"m" + b",".join(c.format_thread(thread) for thread in some)


@packet("qThreadExtraInfo,thread-id", needs=ThreadInformation)
def extra_info(c: Context, thread_id: ThreadId) -> Reply:
    """Words for people about a thread."""
    details = c.target.thread_details(c.live(thread_id))
    return to_hex((details.extra or details.name or "thread").encode(errors="replace"))


@packet("QThreadEvents:enabled", needs=ThreadEvents, advertises="QThreadEvents+")
def thread_events(c: Context, enabled: int) -> Reply:
    """Report creation and exit of every thread."""
    c.target.set_thread_events(bool(enabled))
    return OK


@packet("QThreadOptions;options", needs=ThreadEvents, advertises="QThreadOptions=3")
def thread_options(c: Context, options: bytes) -> Reply:
    """Report clones and exit of chosen threads; the leftmost option that covers a thread counts."""
    wanted = []
    for item in options.split(b";"):
        value, colon, thread = item.partition(b":")
        bits = hex_number(value)
        if bits & ~3:
            raise Malformed(f"thread option {bits:#x}")
        wanted.append((ThreadOptions(bits), parse_thread_id(thread) if colon else ThreadId(-1, -1)))
    chosen = {}
    for each in c.target.threads():
        for bits_, pattern in wanted:
            if pattern.matches(each):
                chosen[each] = bits_
                break
    c.target.set_thread_options(chosen)
    return OK


@packet("qGetTLSAddr:thread-id,offset,link-map", needs=ThreadLocalStorage)
def tls_address(c: Context, thread_id: ThreadId, offset: int, link_map: int) -> Reply:
    """Where a thread-local variable is."""
    return b"%x" % c.target.tls_address(c.live(thread_id), offset, link_map)
