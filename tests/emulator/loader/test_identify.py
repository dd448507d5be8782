"""Choosing the ISA and the sysroot."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.abi.errno import E
from emulator.arch import AARCH64, X86_64
from emulator.errors import LinuxError
from emulator.loader.elf import LoadError
from emulator.loader.identify import identify, sysroot_of

TRUE = Path("/bin/true").read_bytes()[:65536]
FOREIGN = TRUE[:18] + (183).to_bytes(2, "little") + TRUE[20:]
FILES = {
    b"/true": TRUE,
    b"/arm": FOREIGN,
    b"/script": b"#!/second x\n",
    b"/second": b"#! /arm\n",
    b"/loop": b"#!/loop\n",
    b"/text": b"hello",
    b"/s390": TRUE[:18] + b"\x16\x00" + TRUE[20:],
    b"/cut": TRUE[:40],
}


def head(path: bytes) -> bytes:
    if path not in FILES:
        raise LinuxError(E.ENOENT)
    return FILES[path]


def test_identify() -> None:
    assert identify(b"/true", head) is X86_64
    assert identify(b"/arm", head) is AARCH64
    assert identify(b"/script", head) is AARCH64
    for path in (b"/loop", b"/text", b"/cut"):
        assert identify(path, head, AARCH64) is AARCH64
    with pytest.raises(LoadError, match="S/390"):
        identify(b"/s390", head)
    with pytest.raises(LinuxError, match="ENOENT"):
        identify(b"/nowhere", head)


def test_sysroot() -> None:
    assert sysroot_of(AARCH64, "x86_64", "", lambda _: True) == "/usr/aarch64-linux-gnu"
    assert sysroot_of(AARCH64, "x86_64", "", lambda _: False) == ""
    assert sysroot_of(AARCH64, "x86_64", "/mine", lambda _: False) == "/mine"
    assert sysroot_of(X86_64, "x86_64", "", lambda _: True) == ""
