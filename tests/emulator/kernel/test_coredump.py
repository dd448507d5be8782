"""core_pattern: which name a core file gets (core(5), "Naming of core dump files")."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.coredump import CorePattern
from emulator.kernel.sysctl import Sysctls


def pattern(text: bytes, uses_pid: bytes = b"0\n") -> CorePattern:
    """As a machine with these settings has it."""
    files = {"/proc/sys/kernel/core_pattern": text + b"\n", "/proc/sys/kernel/core_uses_pid": uses_pid}
    return CorePattern.of(Sysctls(cast(Any, SimpleNamespace(read_file=files.__getitem__))))


@pytest.fixture
def task() -> Any:
    group = SimpleNamespace(dumpable=1, exe="/usr/bin/some prog", rlimits=[(0, 0)] * 4 + [(8192, 9000)])
    kernel = SimpleNamespace(hostname="a/b", clock=SimpleNamespace(realtime_ns=lambda: 7_000_000_000))
    credentials = SimpleNamespace(ruid=5, rgid=6)
    return SimpleNamespace(pid=1000, tid=1003, name="..x/y", group=group, kernel=kernel, credentials=credentials)


@pytest.mark.parametrize(
    ("text", "uses_pid", "name"),
    [
        (b"core", b"0\n", b"core"),
        (b"core", b"1\n", b"core.1000"),
        (b"core.%p", b"1\n", b"core.1000"),
        (b"/tmp/%e.%i.%s.%t", b"0\n", b"/tmp/!.x!y.1003.11.7"),
        (b"%h-%u-%g-%d-%c-%C", b"0\n", b"a!b-5-6-1-8192-0"),
        (b"%f %E", b"0\n", b"some prog !usr!bin!some prog"),
        (b"100%%%q%", b"0\n", b"100%"),
    ],
)
def test_names(task: Any, text: bytes, uses_pid: bytes, name: bytes) -> None:
    assert pattern(text, uses_pid).name(task, 11) == name


def test_handlers_are_not_files() -> None:
    assert pattern(b"|/usr/bin/handler %p").handler
    assert pattern(b"@/run/handler").handler
    assert not pattern(b"core").handler


def test_a_host_that_does_not_tell() -> None:
    def refuses(path: str) -> bytes:
        raise LinuxError(E.ENOENT)

    assert CorePattern.of(Sysctls(cast(Any, SimpleNamespace(read_file=refuses)))).pattern == b"core"
