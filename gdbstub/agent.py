"""Agent expressions (manual: "The GDB Agent Expression Mechanism").

Rule: bytecode comes from outside and may be anything; compiling it raises Malformed, running it raises AgentError, and
it always ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class AgentError(Exception):
    """The expression could not be evaluated (memory, division by zero, too long); a condition then counts as true."""


class AgentContext(Protocol):
    """What an expression sees of the stopped thread."""

    def register(self, regnum: int) -> int:
        """A register as an unsigned number."""

    def memory(self, address: int, size: int) -> int:
        """An unsigned number of 1, 2, 4 or 8 bytes, target byte order; raises AgentError."""

    def print(self, text: bytes) -> None:
        """Output of the printf bytecode."""


class Expression:
    """A compiled expression: call it with a context; the value is 64 bits, unsigned."""

    __slots__ = ("_run", "bytecode")

    def __init__(self, bytecode: bytes, run: Callable[[AgentContext], int]) -> None:
        self.bytecode = bytecode
        self._run = run

    def __call__(self, context: AgentContext) -> int:
        return self._run(context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.bytecode == self.bytecode

    def __hash__(self) -> int:
        return hash(self.bytecode)
