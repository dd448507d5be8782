"""Register sets of x86-64 as ptrace(2) and core files hold them (<sys/user.h>, arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from emulator.abi.errno import E
from emulator.arch import xstate
from emulator.arch.model import RegisterAccess, RegisterNote
from emulator.errors import LinuxError

# struct user_regs_struct
USER_REGS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
SELECTORS = frozenset({"cs", "ss", "ds", "es", "fs", "gs"})
BASES = frozenset({"fs_base", "gs_base"})
TASK_SIZE_MAX = 0x7FFFFFFFF000
FLAG_MASK = 0x54DD5  # CF PF AF ZF SF TF DF OF NT RF AC


def check_user_register(name: str, value: int) -> None:
    """Refuse what putreg() refuses.  Raises LinuxError(EIO)."""
    if name in BASES and value >= TASK_SIZE_MAX:
        raise LinuxError(E.EIO)
    if name in SELECTORS:
        null_allowed = name not in ("cs", "ss")
        if value & 3 != 3 and not (null_allowed and value == 0):
            raise LinuxError(E.EIO)


class GeneralRegisters:
    """NT_PRSTATUS' pr_reg: struct user_regs_struct."""

    size = 8 * len(USER_REGS)

    def pack(self, regs: RegisterAccess) -> bytes:
        """Lay the registers out."""
        return struct.pack(f"<{len(USER_REGS)}Q", *(regs.read(name) for name in USER_REGS))

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write them back one after the other, as the kernel does."""
        for name, (value,) in zip(USER_REGS, struct.iter_unpack("<Q", data[: len(data) & ~7]), strict=False):
            check_user_register(name, value)
            if name == "eflags":
                value = (regs.read(name) & ~FLAG_MASK) | (value & FLAG_MASK)
            regs.write(name, value)


class FloatRegisters:
    """NT_PRFPREG: struct user_fpregs_struct, the FXSAVE image."""

    size = xstate.FXSAVE_SIZE

    def pack(self, regs: RegisterAccess) -> bytes:
        """Build the image."""
        return bytes(xstate.pack_fxsave(regs))

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write it back; a whole image only, without reserved MXCSR bits."""
        if len(data) != self.size or xstate.mxcsr_of(data) & ~xstate.MXCSR_MASK:
            raise LinuxError(E.EINVAL)
        xstate.unpack_fxsave(data, regs)


class ExtendedState:
    """NT_X86_XSTATE: the XSAVE image, with XCR0 in the software bytes where gdb looks for it."""

    size = xstate.XSAVE_SIZE

    def pack(self, regs: RegisterAccess) -> bytes:
        """Build the image."""
        image = xstate.pack_xsave(regs)
        struct.pack_into("<Q", image, xstate.XCR0_OFFSET, xstate.XFEATURES)
        return bytes(image)

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write it back."""
        if len(data) != self.size:
            raise LinuxError(E.EFAULT)  # xstateregs_set: a partial image
        if not xstate.xsave_is_valid(data) or xstate.mxcsr_of(data) & ~xstate.MXCSR_MASK:
            raise LinuxError(E.EINVAL)
        xstate.unpack_xsave(data, regs)


NOTES: Mapping[str, RegisterNote] = {
    "NT_PRSTATUS": GeneralRegisters(),
    "NT_PRFPREG": FloatRegisters(),
    "NT_X86_XSTATE": ExtendedState(),
}
