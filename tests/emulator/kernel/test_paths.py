"""Guest paths: the jail holds, and inside it resolution is the kernel's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.clock import Clock
from emulator.kernel.fd_table import FdTable
from emulator.kernel.host import Host
from emulator.kernel.vfs import Vfs

SECRET = b"outside"


class World:
    """A jail in a directory, and a task-like object in it."""

    def __init__(self, base: Path, jailed: bool = True) -> None:
        self.base = base
        self.root = base / "root"
        self.root.mkdir()
        (base / "secret").write_bytes(SECRET)
        (self.root / "etc").mkdir()
        (self.root / "etc" / "passwd").write_bytes(b"inside")
        (self.root / "a" / "b").mkdir(parents=True)
        self.host = Host()
        self.vfs = Vfs(self.host, str(self.root) if jailed else "/")
        kernel = SimpleNamespace(
            host=self.host, vfs=self.vfs, clock=Clock(self.host), extensions={}, groups={}, tasks=None
        )
        self.task: Any = SimpleNamespace(
            kernel=kernel,
            fs=self.vfs.initial_state(),
            fds=FdTable(),
            call=SimpleNamespace(memo=None),
            group=SimpleNamespace(session=SimpleNamespace(tty=None)),
            pid=1000,
            tid=1000,
        )

    def read(self, path: bytes) -> bytes:
        description = self.vfs.open(self.task, path, O.RDONLY)
        buffer = bytearray(100)
        try:
            return bytes(buffer[: description.read(self.task, [memoryview(buffer)])])
        finally:
            description.close()

    def errno(self, call: Callable[[], object]) -> E:
        with pytest.raises(LinuxError) as caught:
            call()
        return caught.value.errno


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_dots_stop_at_the_root(world: World) -> None:
    assert world.read(b"/../../../../etc/passwd") == b"inside"
    assert world.errno(lambda: world.read(b"/../secret")) is E.ENOENT
    assert world.errno(lambda: world.read(b"../secret")) is E.ENOENT
    world.task.fs.cwd = world.vfs.position(world.task, b"/a/b")
    assert world.read(b"../../../../../etc/passwd") == b"inside"
    assert world.errno(lambda: world.read(b"../../../secret")) is E.ENOENT


def test_absolute_links_resolve_inside(world: World) -> None:
    (world.root / "link").symlink_to("/etc/passwd")
    assert world.read(b"/link") == b"inside"


def test_links_out_do_not_lead_out(world: World) -> None:
    (world.root / "out").symlink_to(world.base / "secret")
    (world.root / "a" / "up").symlink_to("../../../secret")
    (world.root / "dirs").symlink_to("../..")
    assert world.errno(lambda: world.read(b"/out")) is E.ENOENT
    assert world.errno(lambda: world.read(b"/a/up")) is E.ENOENT
    assert world.errno(lambda: world.read(b"/dirs/secret")) is E.ENOENT


def test_a_descriptor_from_outside_does_not_walk_up(world: World) -> None:
    """A directory handed in through a socket or inherited: `..` of it is not in the root."""
    outside = world.base / "outside"
    outside.mkdir()
    adopted = world.vfs.adopt(os.open(outside, os.O_RDONLY), 0)
    fd = world.task.fds.allocate(adopted)
    assert world.errno(lambda: world.vfs.open(world.task, b"../secret", 0, 0, fd)) is E.ENOENT


def test_chroot_is_no_wall_but_the_root_is(world: World) -> None:
    """As natively: a working directory outside the new root walks up freely, here as far as --root."""
    inner = world.vfs.position(world.task, b"/a/b")
    world.task.fs.cwd = world.vfs.position(world.task, b"/a")
    world.task.fs.root, world.task.fs.jailed = inner, True
    assert world.read(b"../etc/passwd") == b"inside"
    assert world.read(b"../../../../etc/passwd") == b"inside"
    assert world.errno(lambda: world.read(b"../../../secret")) is E.ENOENT
    assert world.errno(lambda: world.read(b"/etc/passwd")) is E.ENOENT


def test_a_working_directory_moved_out_does_not_walk_up(world: World) -> None:
    world.task.fs.cwd = world.vfs.position(world.task, b"/a/b")
    (world.root / "a" / "b").rename(world.base / "moved")
    assert world.errno(lambda: world.read(b"../secret")) is E.ENOENT


def test_proc_links_lead_to_the_guests_files(world: World) -> None:
    (world.root / "p").symlink_to("/proc/self/root/../../secret")
    task = world.task
    task.kernel.tasks = SimpleNamespace(find=lambda tid: None)
    assert world.errno(lambda: world.read(b"/p")) is E.ENOENT
    assert world.errno(lambda: world.read(b"/proc/1/root/secret")) is E.ENOENT


def test_names_cannot_be_made_outside(world: World) -> None:
    (world.root / "out").symlink_to("../..")
    place = world.vfs.new_name(world.task, b"/out/new")
    world.host.mkdir(place.name, 0o755, place.dir_fd)
    assert (world.root / "new").is_dir()
    assert not (world.base / "new").exists()


def test_creating_through_a_dangling_link_stays_inside(world: World) -> None:
    (world.root / "dangling").symlink_to("/../../../made")
    description = world.vfs.open(world.task, b"/dangling", O.CREAT | O.WRONLY, 0o600)
    description.close()
    assert (world.root / "made").exists()


def test_a_swapped_link_is_not_followed(world: World) -> None:
    """Between the walk and the open somebody replaces the file by a link out."""
    place = world.vfs.walker.resolve(world.task, -100, b"/etc/passwd")
    (world.root / "etc" / "passwd").unlink()
    (world.root / "etc" / "passwd").symlink_to(world.base / "secret")
    assert world.errno(lambda: world.vfs.open_place(world.task, place, 0)) is E.ELOOP
    assert world.vfs.stat_place(world.task, place).st_mode & 0o170000 == 0o120000


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", E.ENOENT),
        (b"/etc/passwd/", E.ENOTDIR),
        (b"/etc/passwd/x", E.ENOTDIR),
        (b"/missing/x", E.ENOENT),
        (b"/" + b"n" * 256, E.ENAMETOOLONG),
        (b"/" + b"./" * 2048, E.ENAMETOOLONG),
        (b"/loop", E.ELOOP),
        (b"/loop/x", E.ELOOP),
    ],
)
def test_errors_of_a_walk(world: World, path: bytes, expected: E) -> None:
    (world.root / "loop").symlink_to("loop")
    assert world.errno(lambda: world.vfs.stat(world.task, path)) is expected


def test_forty_links_are_enough_and_one_more_too_many(world: World) -> None:
    (world.root / "l0").symlink_to("etc")
    for number in range(1, 41):
        (world.root / f"l{number}").symlink_to(f"l{number - 1}")
    world.vfs.stat(world.task, b"/l39")
    assert world.errno(lambda: world.vfs.stat(world.task, b"/l40")) is E.ELOOP


PARTS = st.sampled_from([b"..", b".", b"", b"etc", b"a", b"b", b"up", b"out", b"abs", b"passwd", b"secret", b"proc"])


@given(parts=st.lists(PARTS, max_size=8), absolute=st.booleans(), deep=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_reads_the_secret(world: World, parts: list[bytes], absolute: bool, deep: bool) -> None:
    for name, target in (("up", "../.."), ("out", str(world.base)), ("abs", "/a/../..")):
        if not (world.root / name).is_symlink():
            (world.root / name).symlink_to(target)
            (world.root / "a" / name).symlink_to(target)
    world.task.fs.cwd = world.vfs.position(world.task, b"/a/b" if deep else b"/")
    path = (b"/" if absolute else b"") + b"/".join(parts)
    try:
        assert world.read(path) != SECRET
    except LinuxError as error:
        assert error.errno in (E.ENOENT, E.ENOTDIR, E.EISDIR, E.ELOOP)


def test_dev_of_an_empty_root(world: World) -> None:
    assert world.read(b"/dev/null") == b""
    assert world.read(b"/dev/zero") == bytes(100)
    assert len(world.read(b"/dev/urandom")) == 100
    assert world.errno(lambda: world.read(b"/dev/tty")) is E.ENXIO
    assert world.errno(lambda: world.read(b"/dev/sda")) is E.ENOENT


def test_the_guests_name_of_a_file(world: World) -> None:
    description = world.vfs.open(world.task, b"/etc/passwd", O.RDONLY)
    assert description.readlink_text() == b"/etc/passwd"
    description.close()
    world.task.fs.cwd = world.vfs.position(world.task, b"/a/b")
    assert world.vfs.walker.position_path(world.task, world.task.fs.cwd) == b"/a/b"


def test_without_a_root_a_plain_path_is_one_host_call(tmp_path: Path) -> None:
    free = World(tmp_path, jailed=False)
    place = free.vfs.walker.resolve(free.task, -100, b"/etc/passwd")
    assert getattr(place, "direct", False)


def test_a_link_into_proc_is_noticed_without_a_root(tmp_path: Path) -> None:
    """The host would follow it into its own /proc: the emulator's, not the guest's."""
    free = World(tmp_path, jailed=False)
    free.task.kernel.tasks = SimpleNamespace(find=lambda tid: None)
    (tmp_path / "p").symlink_to("/proc/self/status")
    assert free.errno(lambda: free.read(os.fsencode(tmp_path / "p"))) is E.ENOENT
    assert free.errno(lambda: free.vfs.stat(free.task, os.fsencode(tmp_path / "p"))) is E.ENOENT
