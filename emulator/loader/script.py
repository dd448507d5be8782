"""The `#!` line, by the kernel's rules (fs/binfmt_script.c; execve(2), "Interpreter scripts")."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.abi.errno import E
from emulator.loader.elf import BINPRM_BUF_SIZE, LoadError

MAX_REWRITES = 5  # exec_binprm: a script of a script ..., then ELOOP
_BLANK = b" \t"


@dataclass(frozen=True, slots=True)
class Shebang:
    """The interpreter a script names, and its one optional argument."""

    interpreter: bytes
    argument: bytes | None

    def rewrite(self, script: bytes, argv: list[bytes]) -> list[bytes]:
        """The interpreter's argument vector: itself, the argument, the script, the script's arguments."""
        middle = [] if self.argument is None else [self.argument]
        return [self.interpreter, *middle, script, *argv[1:]]


def is_script(head: bytes) -> bool:
    """Tell whether a file begins with `#!`."""
    return head[:2] == b"#!"


def parse(head: bytes) -> Shebang:
    """Parse the first BINPRM_BUF_SIZE bytes of a script.  Raises LoadError(ENOEXEC)."""
    buffer = head[:BINPRM_BUF_SIZE].ljust(BINPRM_BUF_SIZE, b"\0")
    end = buffer.find(b"\n")
    nul = buffer.find(b"\0")
    if end < 0 or 0 <= nul < end:  # strnchr() stops at a NUL
        end = BINPRM_BUF_SIZE - 1
        rest = buffer[2:end].lstrip(_BLANK)
        if not rest:
            raise LoadError(E.ENOEXEC, "its #! line is blank")
        if not any(byte in b" \t\0" for byte in rest):
            raise LoadError(E.ENOEXEC, f"the interpreter on its #! line is longer than {BINPRM_BUF_SIZE} bytes")
    line = buffer[2:end].rstrip(_BLANK)
    text = line.lstrip(_BLANK)
    if not text or text[0] == 0:
        raise LoadError(E.ENOEXEC, "its #! line names no interpreter")
    name_end = next((n for n, byte in enumerate(text) if byte in b" \t\0"), len(text))
    argument: bytes | None = None
    if name_end < len(text) and text[name_end] != 0:
        argument = text[name_end:].lstrip(_BLANK).partition(b"\0")[0] or None
    return Shebang(text[:name_end], argument)
