"""A task without a CPU: system-call handlers run on flat memory against the real host."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.arch import by_name
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.credentials import Credentials
from emulator.kernel.fd_table import FdTable
from emulator.kernel.host import Host
from emulator.kernel.kernel import Config, Kernel
from emulator.kernel.signals import SigHand
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import ThreadGroup
from emulator.kernel.user_memory import UserMemory
from emulator.kernel.waits import Block, Wait
from emulator.syscalls import events, limits, polling, sockets
from emulator.syscalls.registry import Entry, compile_entry

BASE = 0x10000
BAD = 0x1000  # never mapped


@cache
def entry_of(name: str, bits: int) -> Entry:
    """The compiled handler of one of the families under test."""
    for module in (sockets, polling, events, limits):
        handler = getattr(module, name, None)
        if handler is not None:
            return compile_entry(handler, bits)
    raise KeyError(name)


class FlatMemory:
    """One writable region at BASE, as a page table."""

    def __init__(self, size: int = 1 << 16) -> None:
        self.data = bytearray(size)

    def _check(self, address: int, count: int, access: Access) -> None:
        if address < BASE or address + count > BASE + len(self.data):
            raise MemoryFault(max(address, BASE + len(self.data)) if address >= BASE else address, access, False)

    def read(self, addr: int, n: int, *, force: bool = False) -> bytes:
        self._check(addr, n, Access.READ)
        return bytes(self.data[addr - BASE : addr - BASE + n])

    def read_uint(self, addr: int, size: int, big_endian: bool, /) -> int:
        return int.from_bytes(self.read(addr, size), "big" if big_endian else "little")

    def write(self, addr: int, data: bytes | bytearray | memoryview, *, force: bool = False) -> None:
        self._check(addr, len(data), Access.WRITE)
        self.data[addr - BASE : addr - BASE + len(data)] = data

    def read_cstring(self, addr: int, limit: int) -> bytes:
        self._check(addr, 1, Access.READ)
        return bytes(self.data[addr - BASE :]).split(b"\0", 1)[0]

    def buffers(self, addr: int, n: int, access: Access) -> list[memoryview]:
        self._check(addr, n, access)
        return [memoryview(self.data)[addr - BASE : addr - BASE + n]]


@dataclass
class Rig:
    """A task and a place to put its arguments."""

    t: Task
    at: int = BASE

    def put(self, data: bytes, align: int = 8) -> int:
        """Lay bytes into guest memory; returns their address."""
        self.at = -(-self.at // align) * align
        address = self.at
        self.t.memory.write(address, data)
        self.at += len(data)
        return address

    def room(self, count: int) -> int:
        """Some zeroed guest memory."""
        return self.put(b"\0" * count)

    def call(self, name: str, *args: int) -> int:
        """The handler's result, its errno or its Block raised."""
        entry = entry_of(name, self.t.arch.bits)
        raw = tuple(value & 0xFFFFFFFFFFFFFFFF for value in (*args, 0, 0, 0, 0, 0, 0)[:6])
        try:
            result = entry(self.t, raw) or 0
        except Block:
            raise  # the call goes on: its memo and deadline stay
        except BaseException:
            self.t.call.finish()
            raise
        if isinstance(result, Wait):
            raise Block(result)
        self.t.call.finish()
        return result

    def result(self, name: str, *args: int) -> int:
        """What the result register would hold, signed: the value, or minus the guest's errno number."""
        try:
            return self.call(name, *args)
        except LinuxError as error:
            return -self.t.arch.errno[error.errno]

    def errno(self, name: str, *args: int) -> E | None:
        """The errno's name, or None for success."""
        try:
            self.call(name, *args)
        except LinuxError as error:
            return error.errno
        return None

    def ints(self, address: int, count: int) -> tuple[int, ...]:
        """Read C ints."""
        return struct.unpack(f"={count}i", self.t.memory.read(address, 4 * count))


def make_rig(arch_name: str = "x86_64", net: str = "host", root: str = "/") -> Rig:
    """A fresh machine with one task."""
    arch = by_name(arch_name)
    cpu = SimpleNamespace(clock=0, core=SimpleNamespace(clock=0))
    kernel = Kernel(arch, Config(net=net, root=root), Host(), cast(Any, cpu), cast(Any, None))
    uid = kernel.tasks.allocate()
    group = ThreadGroup(uid.tid, None, uid.tid, kernel.init_session, SigHand())
    memory = UserMemory(FlatMemory(), None, arch.byteorder, arch.bits)
    task = Task(
        uid, group, kernel, arch, cast(Any, None), memory, FdTable(), kernel.vfs.initial_state(), Credentials.of(0, 0)
    )
    group.tasks[task.tid] = task
    group.leader = task
    kernel.groups[uid.tid] = group
    kernel.tasks.add(task)
    return Rig(task)
