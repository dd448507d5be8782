"""Functions of the host's C library that `os` lacks; they raise LinuxError.

One the libc has not fails with ENOSYS.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.host_errno import by_number

_libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def _bind(name: str, *argtypes: Any, restype: Any = ctypes.c_int) -> Callable[..., int]:
    function = getattr(_libc, name, None)
    if function is None:
        return _missing
    function.argtypes = argtypes
    function.restype = restype

    def call(*args: Any) -> int:
        result: int = function(*args)
        if result == -1:
            raise LinuxError(by_number(ctypes.get_errno()))
        return result

    return call


def _missing(*_args: Any) -> int:
    raise LinuxError(E.ENOSYS)


_int, _uint, _long, _ssize, _ptr, _str = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_int64,
    ctypes.c_ssize_t,
    ctypes.c_void_p,
    ctypes.c_char_p,
)
getdents64 = _bind("getdents64", _int, _ptr, ctypes.c_size_t, restype=_ssize)
renameat2 = _bind("renameat2", _int, _str, _int, _str, _uint)
statx = _bind("statx", _int, _str, _int, _uint, _ptr)
fallocate = _bind("fallocate", _int, _int, _long, _long)
faccessat = _bind("faccessat", _int, _str, _int, _int)
linkat = _bind("linkat", _int, _str, _int, _str, _int)
mknodat = _bind("mknodat", _int, _str, _uint, ctypes.c_uint64)
utimensat = _bind("utimensat", _int, _ptr, _ptr, _int)
sync_file_range = _bind("sync_file_range", _int, _long, _long, _uint)
fstatfs = _bind("fstatfs64", _int, _ptr)
statfs = _bind("statfs64", _str, _ptr)
unshare = _bind("unshare", _int)
mount = _bind("mount", _str, _str, _str, ctypes.c_ulong, _str)
umount2 = _bind("umount2", _str, _int)
name_to_handle_at = _bind("name_to_handle_at", _int, _str, _ptr, _ptr, _int)
open_by_handle_at = _bind("open_by_handle_at", _int, _ptr, _int)
setfsuid = _bind("setfsuid", _uint)
setfsgid = _bind("setfsgid", _uint)

_call = _bind("syscall", *(_long,) * 6, restype=_long)
_NEWER = {"cachestat": 451, "file_getattr": 468, "file_setattr": 469}  # the same on every ISA


def newer(name: str, *args: int) -> int:
    """A call the library has no function for yet."""
    padded = (*args, 0, 0, 0, 0, 0)[:5]
    return _call(_NEWER[name], *padded)


_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159}


def setgroups(groups: Sequence[int]) -> None:
    """setgroups(2) for this thread; the library's own function changes every thread."""
    numbers = (ctypes.c_uint32 * len(groups))(*groups)
    _call(_SYS_SETGROUPS[os.uname().machine], len(groups), ctypes.addressof(numbers), 0, 0, 0)


_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for this thread."""
    words = (part >> shift & 0xFFFFFFFF for shift in (0, 32) for part in (effective, permitted, inheritable))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(*words)
    _call(_SYS_CAPSET[os.uname().machine], ctypes.addressof(header), ctypes.addressof(sets), 0, 0, 0)
