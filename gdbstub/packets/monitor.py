"""qRcmd: the user's own commands to the server (manual: "General Query Packets").

Rule: commands are named functions with help; nothing the client sends is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

from gdbstub.abilities import Monitor, MonitorCommand
from gdbstub.context import Context
from gdbstub.encoding import to_hex
from gdbstub.errors import TargetError
from gdbstub.registry import OK, Farewell, Hex, Reply, packet


@packet("qRcmd,command", needs=Monitor)
def monitor(c: Context, command: Hex) -> Reply:
    """Run a monitor command; its text is the reply."""
    words = command.decode(errors="replace").split()
    commands = c.target.monitor_commands()
    try:
        text = run(commands, words)
    except UnknownCommandError as error:
        c.console += [error.text.encode(errors="replace"), help_text(commands, ()).encode(errors="replace")]
        raise TargetError(0x01, error.text.strip()) from None
    except TargetError as error:
        text = f"{error.message or 'failed'}\n"
    reply = to_hex(text.encode(errors="replace")[: c.packet_size // 2]) if text else OK
    return Farewell(reply) if getattr(c.target, "exit_requested", False) else reply


class UnknownCommandError(Exception):
    """No such command, or more than one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def run(commands: Sequence[MonitorCommand], words: Sequence[str]) -> str:
    """Find the command (an unambiguous beginning will do) and run it; help is built in."""
    if not words:
        raise UnknownCommandError("Unknown monitor command.\n\n")
    if words[0] == "help":
        return help_text(commands, words[1:])
    name, *arguments = words
    exact = [command for command in commands if command.name == name]
    found = exact or [command for command in commands if command.name.startswith(name)]
    if len(found) != 1:
        if found:
            names = ", ".join(command.name for command in found)
            raise UnknownCommandError(f"Ambiguous monitor command {name!r}: {names}\n\n")
        raise UnknownCommandError(f"Unknown monitor command {name!r}.\n\n")
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
    head = "" if topics else "The following monitor commands are supported:\n"
    return head + "".join(f"{usage:<{width}}  {text}\n" for usage, text in rows)
