"""C structures whose layout is the ISA's, described for `struct`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A C structure: `format` is for `struct` (byte order included), `fields` names its values in order."""

    format: str
    fields: tuple[str, ...]

    @property
    def size(self) -> int:
        """sizeof."""
        return struct.calcsize(self.format)

    def pack(self, values: Mapping[str, int]) -> bytes:
        """Lay `values` out; a field not given is zero."""
        return struct.pack(self.format, *(values.get(name, 0) for name in self.fields))

    def unpack(self, data: bytes) -> dict[str, int]:
        """Read the fields."""
        return dict(zip(self.fields, struct.unpack(self.format, data[: self.size]), strict=True))


_TIMES = ("st_atime", "st_atime_nsec", "st_mtime", "st_mtime_nsec", "st_ctime", "st_ctime_nsec")

# arch/x86/include/uapi/asm/stat.h
STAT_X86_64 = StructLayout(
    "<QQQIII4xQqqqqQqQqQ24x",
    (
        "st_dev",
        "st_ino",
        "st_nlink",
        "st_mode",
        "st_uid",
        "st_gid",
        "st_rdev",
        "st_size",
        "st_blksize",
        "st_blocks",
        *_TIMES,
    ),
)
# include/uapi/asm-generic/stat.h, 64 bits: aarch64, riscv64
STAT_GENERIC64 = StructLayout(
    "<QQIIIIQ8xqi4xqqQqQqQ8x",
    (
        "st_dev",
        "st_ino",
        "st_mode",
        "st_nlink",
        "st_uid",
        "st_gid",
        "st_rdev",
        "st_size",
        "st_blksize",
        "st_blocks",
        *_TIMES,
    ),
)
# include/uapi/asm-generic/statfs.h, 64 bits
STATFS_GENERIC64 = StructLayout(
    "<qqQQQQQiiqqq32x",
    (
        "f_type", "f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree",
        "f_fsid0", "f_fsid1", "f_namelen", "f_frsize", "f_flags",
    ),
)  # fmt: skip
