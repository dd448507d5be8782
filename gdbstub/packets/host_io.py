"""Host I/O: vFile (manual: "Host I/O Packets"; flags, modes and struct stat: "File-I/O Remote Protocol Extension")."""

from __future__ import annotations

import struct

from gdbstub.abilities import FileStatus, HostIo, OpenFlags
from gdbstub.context import Context
from gdbstub.errors import FileError
from gdbstub.registry import Escaped, Hex, host_io

_APPEND, _CREATE, _TRUNCATE, _EXCLUSIVE = 0x8, 0x200, 0x400, 0x800
_ACCESS = {0: OpenFlags.READ, 1: OpenFlags.WRITE, 2: OpenFlags.READ | OpenFlags.WRITE}
_KNOWN = 3 | _APPEND | _CREATE | _TRUNCATE | _EXCLUSIVE
_STAT = struct.Struct(">7I3Q3I")
_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF


def open_flags(number: int) -> OpenFlags:
    """The protocol's flags, which are not the host's."""
    if number & ~_KNOWN or number & 3 not in _ACCESS:
        raise FileError("EINVAL")
    flags = _ACCESS[number & 3]
    for bit, flag in (
        (_APPEND, OpenFlags.APPEND),
        (_CREATE, OpenFlags.CREATE),
        (_TRUNCATE, OpenFlags.TRUNCATE),
        (_EXCLUSIVE, OpenFlags.EXCLUSIVE),
    ):
        if number & bit:
            flags |= flag
    return flags


def pack_status(status: FileStatus) -> bytes:
    """The protocol's struct stat: big-endian, 64 bytes."""
    return _STAT.pack(
        status.device & _U32,
        status.inode & _U32,
        status.mode & _U32,
        status.links & _U32,
        status.user & _U32,
        status.group & _U32,
        status.raw_device & _U32,
        status.size & _U64,
        status.block_size & _U64,
        status.blocks & _U64,
        status.access_time & _U32,
        status.modification_time & _U32,
        status.change_time & _U32,
    )


@host_io("setfs pid", needs=HostIo)
def set_file_system(c: Context, pid: int) -> int:
    """From now on file names are those that process sees (0: the server's choice)."""
    c.file_process = pid
    return 0


@host_io("open filename,flags,mode", needs=HostIo)
def open_(c: Context, filename: Hex, flags: int, mode: int) -> int:
    """Open a file."""
    descriptor: int = c.target.file_open(c.file_process, filename, open_flags(flags), mode)
    return descriptor


@host_io("close fd", needs=HostIo)
def close(c: Context, fd: int) -> int:
    """Close a file."""
    c.target.file_close(fd)
    return 0


@host_io("pread fd,count,offset", needs=HostIo)
def pread(c: Context, fd: int, count: int, offset: int) -> bytes:
    """Read; as much as fits a packet even if every byte has to be escaped."""
    data: bytes = c.target.file_read(fd, min(count, c.packet_size // 2 - 16), offset)
    return data


@host_io("pwrite fd,offset,data", needs=HostIo)
def pwrite(c: Context, fd: int, offset: int, data: Escaped) -> int:
    """Write."""
    written: int = c.target.file_write(fd, data, offset)
    return written


@host_io("fstat fd", needs=HostIo)
def fstat(c: Context, fd: int) -> bytes:
    """Status of an open file."""
    return pack_status(c.target.file_status(fd))


@host_io("stat filename", needs=HostIo)
def stat(c: Context, filename: Hex) -> bytes:
    """Status of a file."""
    return pack_status(c.target.path_status(c.file_process, filename, follow=True))


@host_io("lstat filename", needs=HostIo)
def lstat(c: Context, filename: Hex) -> bytes:
    """Status of a file or symbolic link."""
    return pack_status(c.target.path_status(c.file_process, filename, follow=False))


@host_io("unlink filename", needs=HostIo)
def unlink(c: Context, filename: Hex) -> int:
    """Remove a file."""
    c.target.file_unlink(c.file_process, filename)
    return 0


@host_io("readlink filename", needs=HostIo)
def readlink(c: Context, filename: Hex) -> bytes:
    """Where a symbolic link points to."""
    target: bytes = c.target.file_readlink(c.file_process, filename)
    return target
