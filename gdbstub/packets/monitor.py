"""qRcmd: the user's own commands to the server (manual: "General Query Packets").

Rule: commands are named functions with help; nothing the client sends is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

from gdbstub.context import Context
from gdbstub.encoding import to_hex
from gdbstub.errors import TargetError
from gdbstub.registry import OK, Hex, Reply, packet
from gdbstub.target import Monitor, MonitorCommand


@packet("qRcmd,command", needs=Monitor)
def monitor(c: Context, command: Hex) -> Reply:
    """Run a monitor command; its text is the reply."""
    words = command.decode(errors="replace").split()
    commands = c.target.monitor_commands()
    try:
        text = run(commands, words)
    except TargetError as error:
        text = f"{error.message or 'failed'}\n"
    return to_hex(text.encode(errors="replace")[: c.packet_size // 2]) if text else OK


def run(commands: Sequence[MonitorCommand], words: Sequence[str]) -> str:
    """Find the command (an unambiguous beginning will do) and run it; help is built in."""
    if not words or words[0] == "help":
        return help_text(commands, words[1:])
    name, *arguments = words
    exact = [command for command in commands if command.name == name]
    found = exact or [command for command in commands if command.name.startswith(name)]
    if len(found) != 1:
        what = "ambiguous" if found else "unknown"
        names = ", ".join(command.name for command in found or commands)
        return f"{what} monitor command {name!r}; there are: help, {names}\n"
    text = found[0].run(arguments)
    return text if not text or text.endswith("\n") else text + "\n"


def help_text(commands: Sequence[MonitorCommand], topics: Sequence[str]) -> str:
    """A line for each command, or for those that are named."""
    chosen = [command for command in commands if not topics or command.name in topics]
    if topics and not chosen:
        return f"no monitor command {topics[0]!r}\n"
    rows = [(command.usage or command.name, command.help) for command in chosen]
    if not topics:
        rows.insert(0, ("help [COMMAND]", "show this"))
    width = max(len(usage) for usage, _ in rows)
    return "".join(f"{usage:<{width}}  {text}\n" for usage, text in rows)
