"""Register sets of aarch64 as ptrace(2) and core files hold them (<asm/ptrace.h>, arch/arm64/kernel/ptrace.c)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from emulator.abi.errno import E
from emulator.arch.model import RegisterAccess, RegisterNote
from emulator.errors import LinuxError

GENERAL = (*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr")
PSR_MODE_AND_DAIF = 0x3DF


class GeneralRegisters:
    """NT_PRSTATUS' pr_reg: struct user_pt_regs."""

    size = 8 * len(GENERAL)

    def pack(self, regs: RegisterAccess) -> bytes:
        """Lay the registers out."""
        return struct.pack(f"<{len(GENERAL)}Q", *(regs.read(name) for name in GENERAL))

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write them back; a pstate that is not user mode's is refused (valid_user_regs)."""
        data = data[: len(data) & ~7]
        values = [value for (value,) in struct.iter_unpack("<Q", data[: self.size])]
        if len(values) == len(GENERAL) and values[-1] & PSR_MODE_AND_DAIF:
            raise LinuxError(E.EINVAL)
        for name, value in zip(GENERAL, values, strict=False):
            regs.write(name, value)


class FloatRegisters:
    """NT_PRFPREG: struct user_fpsimd_state."""

    size = 528

    def pack(self, regs: RegisterAccess) -> bytes:
        """Lay the registers out."""
        vectors = b"".join(regs.read(f"v{n}").to_bytes(16, "little") for n in range(32))
        return vectors + struct.pack("<II8x", regs.read("fpsr"), regs.read("fpcr"))

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write them back; a short write keeps the rest."""
        whole = data[: self.size] + self.pack(regs)[len(data) :]
        for n in range(32):
            regs.write(f"v{n}", int.from_bytes(whole[16 * n : 16 * n + 16], "little"))
        fpsr, fpcr = struct.unpack_from("<II", whole, 512)
        regs.write("fpsr", fpsr)
        regs.write("fpcr", fpcr)


class ThreadPointer:
    """NT_ARM_TLS."""

    size = 8

    def pack(self, regs: RegisterAccess) -> bytes:
        """Lay TPIDR_EL0 out."""
        return struct.pack("<Q", regs.read("tpidr"))

    def unpack(self, data: bytes, regs: RegisterAccess) -> None:
        """Write it back."""
        if len(data) < self.size:
            return
        regs.write("tpidr", int.from_bytes(data[:8], "little"))


NOTES: Mapping[str, RegisterNote] = {
    "NT_PRSTATUS": GeneralRegisters(),
    "NT_PRFPREG": FloatRegisters(),
    "NT_ARM_TLS": ThreadPointer(),
}
