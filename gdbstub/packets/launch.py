"""Extended mode: start, attach, and what a start starts with (manual: "Packets", "General Query Packets")."""

from __future__ import annotations

from gdbstub.abilities import Launch, LaunchSettings
from gdbstub.context import Context
from gdbstub.encoding import from_hex
from gdbstub.errors import Malformed, TargetError
from gdbstub.registry import OK, Hex, Reply, Verdict, packet
from gdbstub.stop import StopEvent
from gdbstub.thread_id import SOME


@packet("!", needs=Launch)
def extended_mode(c: Context) -> Reply:
    """The server outlives its processes and may start others."""
    c.extended = True
    return OK


def _begun(c: Context, event: StopEvent) -> Reply:
    c.general = c.continuing = c.current = SOME
    if c.non_stop:
        c.note_current(event)
    return c.stop_reply(event)


@packet("vRun;command", needs=Launch)
def run(c: Context, command: bytes) -> Reply:
    """Start a program (empty: the last one) with arguments, all in hex."""
    program, *arguments = [from_hex(part) for part in command.split(b";")]
    return _begun(c, c.target.launch(program, arguments, c.launch_settings))


@packet("vAttach;process", needs=Launch)
def attach(c: Context, process: int) -> Reply:
    """Begin to debug a process that runs."""
    event = c.target.attach(process)
    if c.non_stop:
        c.notifications.append(event)
        return OK
    return _begun(c, event)


@packet("R [unused]", needs=Launch)
def restart(c: Context, unused: bytes = b"") -> Reply:
    """Start the last program again; there is no reply."""
    for process in c.processes():
        c.target.kill(process)
    try:
        event = c.target.launch(b"", (), c.launch_settings)
    except TargetError:
        return Verdict.SILENT
    c.general = c.continuing = c.current = SOME
    c.last_event = event
    return Verdict.SILENT


@packet("QStartupWithShell:enabled", needs=Launch, advertises="QStartupWithShell+")
def startup_with_shell(c: Context, enabled: int) -> Reply:
    """Whether programs are started by a shell."""
    c.launch_settings.startup_with_shell = bool(enabled)
    return OK


@packet("QDisableRandomization:disabled", needs=Launch, advertises="QDisableRandomization+")
def disable_randomization(c: Context, disabled: int) -> Reply:
    """Whether programs are started without ASLR."""
    c.launch_settings.disable_randomization = bool(disabled)
    return OK


@packet("QSetDisableASLR:disabled", needs=Launch)
def set_disable_aslr(c: Context, disabled: int) -> Reply:
    """LLDB's word for it."""
    return disable_randomization(c, disabled)


@packet("QEnvironmentHexEncoded:assignment", needs=Launch, advertises="QEnvironmentHexEncoded+")
def set_variable(c: Context, assignment: Hex) -> Reply:
    """NAME=VALUE for the next program."""
    name, equals, value = assignment.partition(b"=")
    if not name or not equals:
        raise Malformed("not NAME=VALUE")
    c.launch_settings.environment[name] = value
    return OK


@packet("QEnvironmentUnset:name", needs=Launch, advertises="QEnvironmentUnset+")
def unset_variable(c: Context, name: Hex) -> Reply:
    """The next program does not get this variable."""
    c.launch_settings.environment[name] = None
    return OK


@packet("QEnvironmentReset", needs=Launch, advertises="QEnvironmentReset+")
def reset_environment(c: Context) -> Reply:
    """Undo all changes of the environment."""
    settings = c.launch_settings
    c.launch_settings = LaunchSettings(
        working_directory=settings.working_directory,
        startup_with_shell=settings.startup_with_shell,
        disable_randomization=settings.disable_randomization,
    )
    return OK


@packet("QSetWorkingDir:directory", needs=Launch, advertises="QSetWorkingDir+")
def set_working_directory(c: Context, directory: Hex) -> Reply:
    """Where the next program starts; empty: where the server did."""
    c.launch_settings.working_directory = directory
    return OK
