"""What the debugger needs of the machine: points, stepping, catching; `target.py` is what gdbstub sees."""
