"""Backward: bc and bs (manual: "Packets")."""

from __future__ import annotations

from gdbstub.abilities import ReverseExecution
from gdbstub.context import Context
from gdbstub.registry import OK, Reply, Verdict, packet
from gdbstub.thread_id import SOME


@packet("bc", needs=ReverseExecution, advertises="ReverseContinue+")
def reverse_continue(c: Context) -> Reply:
    """Run backward to the last point, or the beginning."""
    c.target.reverse_continue()
    return OK if c.non_stop else Verdict.RESUMED


@packet("bs", needs=ReverseExecution, advertises="ReverseStep+")
def reverse_step(c: Context) -> Reply:
    """One instruction backward."""
    c.target.reverse_step(c.continuing if c.continuing.is_thread else c.resolve(SOME))
    return OK if c.non_stop else Verdict.RESUMED
