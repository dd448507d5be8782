"""Objects of qXfer (manual: "General Query Packets", qXfer; the XML formats have appendices of their own)."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape as xml_text
from xml.sax.saxutils import quoteattr

from gdbstub.abilities import (
    AuxiliaryVector,
    ExecutableFile,
    Libraries,
    LibraryList,
    OsData,
    SignalInformation,
    ThreadInformation,
)
from gdbstub.context import Context
from gdbstub.encoding import hex_number
from gdbstub.errors import Malformed, TargetError
from gdbstub.registry import xfer, xfer_write

_HEADER = '<?xml version="1.0"?>\n'


def no_annex(annex: str) -> None:
    """Refuse an annex where there is only one object (E00, says the manual, for a bad annex)."""
    if annex:
        raise Malformed(f"annex {annex!r}")


@xfer("features")
def features(c: Context, annex: str) -> bytes:
    """The target description."""
    if annex != "target.xml":
        raise Malformed(f"no {annex!r}")
    try:
        process = c.process or c.processes()[0]
    except IndexError:
        raise TargetError(0x03, "no process") from None
    xml: bytes = c.target.description(process).xml
    return xml


@xfer("auxv", needs=AuxiliaryVector)
def auxv(c: Context, annex: str) -> bytes:
    """The auxiliary vector, as /proc/PID/auxv has it."""
    no_annex(annex)
    data: bytes = c.target.auxiliary_vector(c.process)
    return data


@xfer("exec-file", needs=ExecutableFile)
def exec_file(c: Context, annex: str) -> bytes:
    """Name of the program; the annex is the process, in hex."""
    name: str = c.target.executable_file(hex_number(annex.encode()) if annex else c.process)
    return name.encode(errors="surrogateescape")


@xfer("libraries-svr4", needs=Libraries, advertises="augmented-libraries-svr4-read+")
def libraries(c: Context, annex: str) -> bytes:
    """The link_maps; the annex may say where to begin: start=ADDR;prev=ADDR;lmid=ADDR."""
    wanted = {}
    for item in filter(None, annex.split(";")):
        key, _, value = item.partition("=")
        wanted[key] = hex_number(value.encode())
    found: LibraryList = c.target.libraries(
        c.process, start=wanted.get("start", 0), prev=wanted.get("prev", 0), namespace=wanted.get("lmid", 0)
    )
    # LLDB would take main-lm for the address of the r_debug pointer (ProcessGDBRemote::GetImageInfoAddress)
    main = f' main-lm="{found.main_link_map:#x}"' if found.main_link_map and not c.thread_suffix else ""
    lines = [f'<library-list-svr4 version="1.0"{main}>']
    for each in found.libraries:
        namespace = f' lmid="{each.namespace:#x}"' if each.namespace else ""
        lines.append(
            f'<library name={quoteattr(each.name)} lm="{each.link_map:#x}" l_addr="{each.load_bias:#x}"'
            f' l_ld="{each.dynamic:#x}"{namespace}/>'
        )
    lines.append("</library-list-svr4>")
    return "".join(lines).encode(errors="surrogateescape")


@xfer("threads", needs=ThreadInformation)
def threads(c: Context, annex: str) -> bytes:
    """Live threads with name, core and handle."""
    no_annex(annex)
    lines = [_HEADER + "<threads>"]
    for thread in c.introduced():
        try:
            details = c.target.thread_details(thread)
        except TargetError:
            continue  # it exited meanwhile
        attributes = f'id="{c.format_thread(thread).decode()}"'
        if details.core is not None:
            attributes += f' core="{details.core}"'
        if details.name:
            attributes += f" name={quoteattr(_printable(details.name))}"
        if details.handle:
            attributes += f' handle="{details.handle.hex()}"'
        if details.id_str:
            attributes += f" id_str={quoteattr(_printable(details.id_str))}"
        lines.append(f"<thread {attributes}>{xml_text(_printable(details.extra))}</thread>")
    lines.append("</threads>\n")
    return "\n".join(lines).encode(errors="replace")


def _printable(text: str) -> str:
    """XML 1.0 has no control characters, however they are written."""
    return "".join(char if char.isprintable() else "?" for char in text)


@xfer("siginfo", needs=SignalInformation)
def siginfo(c: Context, annex: str) -> bytes:
    """siginfo_t of the selected thread's signal."""
    no_annex(annex)
    data: bytes = c.target.read_siginfo(c.live(c.thread))
    return data


@xfer_write("siginfo", needs=SignalInformation)
def write_siginfo(c: Context, annex: str, offset: int, data: bytes) -> int:
    """Change the siginfo_t."""
    no_annex(annex)
    c.target.write_siginfo(c.live(c.thread), offset, data)
    return len(data)


@xfer("osdata", needs=OsData)
def osdata(c: Context, annex: str) -> bytes:
    """`info os`: without an annex the tables there are."""
    tables = c.target.os_tables()
    if not annex:
        rows: Iterable[dict[str, str]] = (
            {"Type": name, "Description": text, "Title": name.capitalize()} for name, text in tables.items()
        )
        return os_table_xml("types", rows)
    if annex not in tables:
        return b""  # gdb takes it for a wrong name, and says so
    return os_table_xml(annex, c.target.os_table(annex).rows)


def os_table_xml(name: str, rows: Iterable[dict[str, str]]) -> bytes:
    """An <osdata> document."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "osdata.dtd">',
        f"<osdata type={quoteattr(name)}>",
    ]
    for row in rows:
        columns = "".join(
            f"<column name={quoteattr(column)}>{xml_text(_printable(text))}</column>" for column, text in row.items()
        )
        lines.append(f"<item>{columns}</item>")
    lines.append("</osdata>")
    return "\n".join(lines).encode(errors="replace")
