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


_CONTROL = ("fctrl", "fstat", "ftag", "fop", "fioff", "fiseg", "fooff", "foseg", "mxcsr")
_STACK = tuple(f"st{n}" for n in range(8))
_VECTORS = tuple(f"xmm{n}" for n in range(16))
REGISTERS = (*_CONTROL, *_STACK, *_VECTORS)
_DATA = struct.Struct("<" + "10s6x" * 8 + "16s" * 16)
_X87_INITIAL = dict.fromkeys((*_CONTROL[:-1], *_STACK), 0) | {"fctrl": 0x37F, "ftag": 0xFFFF}
_SSE_INITIAL = {"mxcsr": 0x1F80, **dict.fromkeys(_VECTORS, 0)}


def pack_fxsave(regs: RegisterAccess) -> bytearray:
    """Build the 512-byte FXSAVE64 image."""
    image = bytearray(FXSAVE_SIZE)
    cwd, swd, tags, fop, fioff, fiseg, fooff, foseg, mxcsr, *data = regs.read_many(REGISTERS)
    twd = abridged_tag(tags)
    _HEAD.pack_into(
        image, 0, cwd & 0xFFFF, swd & 0xFFFF, twd, fop & 0x7FF, fioff & 0xFFFFFFFF, fiseg & 0xFFFF,
        fooff & 0xFFFFFFFF, foseg & 0xFFFF, mxcsr, MXCSR_MASK,
    )  # fmt: skip
    stack = [value.to_bytes(10, "little") for value in data[:8]]
    vectors = [value.to_bytes(16, "little") for value in data[8:]]
    _DATA.pack_into(image, 32, *stack, *vectors)
    return image


def unpack_fxsave(image: bytes, regs: RegisterAccess, *, x87: bool = True, sse: bool = True) -> None:
    """Write an FXSAVE64 image back; a component not chosen gets its initial state, as XRSTOR does."""
    cwd, swd, twd, fop, fioff, fiseg, fooff, foseg, mxcsr, _ = _HEAD.unpack_from(image)
    data = [int.from_bytes(value, "little") for value in _DATA.unpack_from(image, 32)]
    values = dict(_X87_INITIAL)
    if x87:
        stack = data[:8]
        tags = full_tag(twd, swd >> 11 & 7, stack)
        control = (cwd | 0x40, swd, tags, fop & 0x7FF, fioff, fiseg, fooff, foseg)
        values = dict(zip((*_CONTROL[:-1], *_STACK), (*control, *stack), strict=True))
    if sse:
        values["mxcsr"] = mxcsr & MXCSR_MASK
        values.update(zip(_VECTORS, data[8:], strict=True))
    else:
        values.update(_SSE_INITIAL)
    regs.write_many(values)


def reset(regs: RegisterAccess) -> None:
    """Put x87 and SSE into their initial state, as the kernel does before it runs a signal handler."""
    regs.write_many(_X87_INITIAL | _SSE_INITIAL)


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
