"""The descriptor table against a model: a plain dict, always the lowest free number."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.fd_table import FdTable
from emulator.kernel.files.description import Description
from emulator.kernel.host import Host

HOST = Host()
LIMIT = 12
FDS = st.integers(-2, LIMIT + 2)


class Probe(Description):
    """Counts how often it is closed."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        super().__init__(HOST, 0)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Model(RuleBasedStateMachine):
    """Every operation on the table and on a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table = FdTable(LIMIT)
        self.model: dict[int, tuple[Probe, bool]] = {}
        self.probes: list[Probe] = []

    def lowest(self, start: int = 0) -> int:
        return next(n for n in range(start, 1000) if n not in self.model)

    @rule(cloexec=st.booleans())
    def allocate(self, cloexec: bool) -> None:
        probe = Probe()
        expected = self.lowest()
        if expected >= LIMIT:
            with pytest.raises(LinuxError) as caught:
                self.table.allocate(probe, cloexec=cloexec)
            assert caught.value.errno is E.EMFILE
            assert probe.closed == 1
            return
        assert self.table.allocate(probe, cloexec=cloexec) == expected
        self.model[expected] = probe, cloexec
        self.probes.append(probe)

    @rule(fd=FDS)
    def close(self, fd: int) -> None:
        if fd in self.model:
            self.table.close(fd)
            del self.model[fd]
        else:
            with pytest.raises(LinuxError) as caught:
                self.table.close(fd)
            assert caught.value.errno is E.EBADF

    @rule(fd=FDS, lowest=FDS, cloexec=st.booleans())
    def dup(self, fd: int, lowest: int, cloexec: bool) -> None:
        try:
            new = self.table.dup(fd, lowest, cloexec)
        except LinuxError as error:
            if fd not in self.model:
                assert error.errno is E.EBADF
            elif not 0 <= lowest < LIMIT:
                assert error.errno is E.EINVAL
            else:
                assert error.errno is E.EMFILE
                assert self.lowest(lowest) >= LIMIT
            return
        assert new == self.lowest(lowest)
        self.model[new] = self.model[fd][0], cloexec

    @rule(old=FDS, new=FDS, cloexec=st.booleans())
    def dup_onto(self, old: int, new: int, cloexec: bool) -> None:
        if old == new:
            return
        try:
            assert self.table.dup_onto(old, new, cloexec) == new
        except LinuxError as error:
            assert error.errno is E.EBADF
            assert old not in self.model or not 0 <= new < LIMIT
            return
        self.model[new] = self.model[old][0], cloexec

    @rule(first=FDS, last=FDS, mark=st.booleans())
    def close_range(self, first: int, last: int, mark: bool) -> None:
        self.table.close_range(first, last, only_cloexec=mark)
        for fd in [fd for fd in self.model if first <= fd <= last]:
            if mark:
                self.model[fd] = self.model[fd][0], True
            else:
                del self.model[fd]

    @rule()
    def execute(self) -> None:
        self.table.close_on_exec()
        self.model = {fd: entry for fd, entry in self.model.items() if not entry[1]}

    @rule()
    def fork_and_exit(self) -> None:
        child = self.table.fork()
        assert list(child) == list(self.table)
        assert [child.cloexec(fd) for fd, _ in child] == [self.table.cloexec(fd) for fd, _ in self.table]
        child.leave()

    @invariant()
    def same(self) -> None:
        assert list(self.table) == sorted((fd, entry[0]) for fd, entry in self.model.items())
        assert all(self.table.cloexec(fd) == entry[1] for fd, entry in self.model.items())
        users = [id(entry[0]) for entry in self.model.values()]
        for probe in self.probes:
            assert probe.references == users.count(id(probe))
            assert probe.closed == (0 if id(probe) in users else 1)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_pair_is_both_or_neither() -> None:
    table = FdTable(1)
    first, second = Probe(), Probe()
    with pytest.raises(LinuxError):
        table.allocate_pair(first, second)
    assert (first.closed, second.closed, len(table)) == (1, 1, 0)


def test_what_is_opened_by_path_serves_no_io() -> None:
    table = FdTable()
    probe = Probe()
    probe.path_only = True
    fd = table.allocate(probe)
    assert table.get_raw(fd) is probe
    with pytest.raises(LinuxError) as caught:
        table.get(fd)
    assert caught.value.errno is E.EBADF
