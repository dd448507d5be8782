"""Non-stop mode (manual: "Remote Non-Stop", "Notification Packets")."""

from __future__ import annotations

from gdbstub.abilities import NonStop
from gdbstub.context import Context
from gdbstub.registry import OK, Reply, packet


@packet("QNonStop:enabled", needs=NonStop, advertises="QNonStop+")
def non_stop(c: Context, enabled: int) -> Reply:
    """Switch between all-stop and non-stop."""
    c.non_stop = bool(enabled)
    c.target.set_non_stop(c.non_stop)
    c.notifications.clear()
    return OK


@packet("vStopped", needs=NonStop)
def stopped(c: Context) -> Reply:
    """The client has read a stop and wants the next one."""
    if c.notifications:
        c.notifications.popleft()
    return c.stop_reply(c.notifications[0]) if c.notifications else OK


@packet("vCtrlC", needs=NonStop)
def interrupt(c: Context) -> Reply:
    """As the character 3 in all-stop."""
    c.target.interrupt()
    return OK
