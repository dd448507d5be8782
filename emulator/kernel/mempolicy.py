"""Memory policies of a machine with one node: remembered as asked for, nothing to choose.

Source: man 2 set_mempolicy, mbind; mm/mempolicy.c (sanitize_mpol_flags, mpol_new, mpol_set_nodemask).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from emulator.abi.errno import E
from emulator.errors import LinuxError

ALL_NODES = 1  # bit n is node n


class Mode(IntEnum):
    """MPOL_*."""

    DEFAULT = 0
    PREFERRED = 1
    BIND = 2
    INTERLEAVE = 3
    LOCAL = 4
    PREFERRED_MANY = 5
    WEIGHTED_INTERLEAVE = 6


class ModeFlag(IntFlag):
    """Or'ed to the mode."""

    NUMA_BALANCING = 1 << 13
    RELATIVE_NODES = 1 << 14
    STATIC_NODES = 1 << 15


_ALL_FLAGS = int(ModeFlag.NUMA_BALANCING | ModeFlag.RELATIVE_NODES | ModeFlag.STATIC_NODES)
_FIXED = int(ModeFlag.RELATIVE_NODES | ModeFlag.STATIC_NODES)


@dataclass(frozen=True, slots=True)
class Policy:
    """struct mempolicy; the absence of one is MPOL_DEFAULT."""

    mode: Mode
    flags: int
    nodes: int
    asked: int

    @property
    def shown(self) -> int:
        """The nodes get_mempolicy(2) tells."""
        return self.asked if self.flags & _FIXED else self.nodes


def split_mode(value: int) -> tuple[Mode, int]:
    """sanitize_mpol_flags: the mode and its flags."""
    flags = value & _ALL_FLAGS
    number = value & ~_ALL_FLAGS
    if not 0 <= number <= max(Mode) or flags & _FIXED == _FIXED:
        raise LinuxError(E.EINVAL)
    mode = Mode(number)
    if flags & ModeFlag.NUMA_BALANCING and mode not in (Mode.BIND, Mode.PREFERRED_MANY):
        raise LinuxError(E.EINVAL)
    return mode, flags


def make_policy(mode: Mode, flags: int, nodes: int) -> Policy | None:
    """mpol_new and mpol_set_nodemask; None for MPOL_DEFAULT."""
    if mode is Mode.DEFAULT:
        if nodes:
            raise LinuxError(E.EINVAL)
        return None
    if mode is Mode.PREFERRED and not nodes:
        if flags & _FIXED:
            raise LinuxError(E.EINVAL)
        mode = Mode.LOCAL
    if mode is Mode.LOCAL:
        if nodes or flags & _FIXED:
            raise LinuxError(E.EINVAL)
        return Policy(mode, flags, 0, 0)
    there = ALL_NODES if nodes and flags & ModeFlag.RELATIVE_NODES else nodes & ALL_NODES
    if not there:
        raise LinuxError(E.EINVAL)
    return Policy(mode, flags, there, nodes)
