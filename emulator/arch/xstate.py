"""The x87/SSE save area: FXSAVE image and XSAVE image (Intel SDM 1, "XSAVE area"; XCR0 = x87 | SSE).

Built from a register file and written back; used by signal frames, ptrace(2) and core files.
"""

from __future__ import annotations

import struct

from emulator.arch.model import RegisterAccess

FXSAVE_SIZE = 512
XSAVE_SIZE = 576  # legacy area and header: no component behind them
XFEATURES = 3
MXCSR_MASK = 0xFFFF
XCR0_OFFSET = 464  # sw_reserved: NT_X86_XSTATE keeps XCR0 there, a signal frame struct _fpx_sw_bytes

_HEAD = struct.Struct("<HHBxHIHxxIHxxII")  # cwd swd twd fop fioff fiseg fooff foseg mxcsr mask
_MANTISSA = (1 << 64) - 1


def abridged_tag(full: int) -> int:
    """Return FXSAVE's tag byte: one bit a physical register, set unless empty."""
    return sum(1 << n for n in range(8) if full >> 2 * n & 3 != 3)


def _tag(value: int) -> int:
    """Return the two-bit tag of a register that is not empty."""
    exponent, mantissa = value >> 64 & 0x7FFF, value & _MANTISSA
    if exponent == 0x7FFF:
        return 2
    if exponent == 0:
        return 2 if mantissa else 1
    return 0 if mantissa >> 63 else 2


def full_tag(abridged: int, top: int, stack: list[int]) -> int:
    """Return the tag word that FSTENV would store; `stack` is st0..st7, relative to TOP."""
    tags = (_tag(stack[(n - top) & 7]) if abridged >> n & 1 else 3 for n in range(8))
    return sum(tag << 2 * n for n, tag in enumerate(tags))


def pack_fxsave(regs: RegisterAccess) -> bytearray:
    """Build the 512-byte FXSAVE64 image."""
    image = bytearray(FXSAVE_SIZE)
    read = regs.read
    _HEAD.pack_into(
        image,
        0,
        read("fctrl") & 0xFFFF,
        read("fstat") & 0xFFFF,
        abridged_tag(read("ftag")),
        read("fop") & 0x7FF,
        read("fioff") & 0xFFFFFFFF,
        read("fiseg") & 0xFFFF,
        read("fooff") & 0xFFFFFFFF,
        read("foseg") & 0xFFFF,
        read("mxcsr") & 0xFFFFFFFF,
        MXCSR_MASK,
    )
    for n in range(8):
        image[32 + 16 * n : 42 + 16 * n] = read(f"st{n}").to_bytes(10, "little")
    for n in range(16):
        image[160 + 16 * n : 176 + 16 * n] = read(f"xmm{n}").to_bytes(16, "little")
    return image


def unpack_fxsave(image: bytes, regs: RegisterAccess, *, x87: bool = True, sse: bool = True) -> None:
    """Write an FXSAVE64 image back; a component not chosen gets its initial state, as XRSTOR does."""
    cwd, swd, twd, fop, fioff, fiseg, fooff, foseg, mxcsr, _ = _HEAD.unpack_from(image)
    if x87:
        stack = [int.from_bytes(image[32 + 16 * n : 42 + 16 * n], "little") for n in range(8)]
        values = {"fctrl": cwd | 0x40, "fstat": swd, "fop": fop & 0x7FF}
        values |= {"fioff": fioff, "fiseg": fiseg, "fooff": fooff, "foseg": foseg}
        values["ftag"] = full_tag(twd, swd >> 11 & 7, stack)
        for name, value in values.items():
            regs.write(name, value)
        for n, value in enumerate(stack):
            regs.write(f"st{n}", value)
    else:
        reset_x87(regs)
    if sse:
        for n in range(16):
            regs.write(f"xmm{n}", int.from_bytes(image[160 + 16 * n : 176 + 16 * n], "little"))
        regs.write("mxcsr", mxcsr & MXCSR_MASK)
    else:
        reset_sse(regs)


def reset_x87(regs: RegisterAccess) -> None:
    """FNINIT, and empty registers."""
    for name in ("fstat", "fop", "fioff", "fiseg", "fooff", "foseg", *(f"st{n}" for n in range(8))):
        regs.write(name, 0)
    regs.write("fctrl", 0x37F)
    regs.write("ftag", 0xFFFF)


def reset_sse(regs: RegisterAccess) -> None:
    """The state execve(2) gives."""
    for n in range(16):
        regs.write(f"xmm{n}", 0)
    regs.write("mxcsr", 0x1F80)


def reset(regs: RegisterAccess) -> None:
    """Put x87 and SSE into their initial state, as the kernel does before it runs a signal handler."""
    reset_x87(regs)
    reset_sse(regs)


def pack_xsave(regs: RegisterAccess) -> bytearray:
    """Build the 576-byte XSAVE image in standard format."""
    image = pack_fxsave(regs)
    image += struct.pack("<QQ48x", XFEATURES, 0)
    return image


def unpack_xsave(image: bytes, regs: RegisterAccess) -> None:
    """Write an XSAVE image back; XSTATE_BV chooses what is in it."""
    (xstate_bv,) = struct.unpack_from("<Q", image, FXSAVE_SIZE)
    unpack_fxsave(image, regs, x87=bool(xstate_bv & 1), sse=bool(xstate_bv & 2))


def xsave_is_valid(image: bytes) -> bool:
    """Tell whether the kernel would take this image: no unknown component, standard format, reserved bytes zero."""
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", image, FXSAVE_SIZE)
    reserved = image[FXSAVE_SIZE + 16 : XSAVE_SIZE]
    return not xstate_bv & ~XFEATURES and xcomp_bv == 0 and not any(reserved)


def mxcsr_of(image: bytes) -> int:
    """Return the MXCSR of an image."""
    return int.from_bytes(image[24:28], "little")
