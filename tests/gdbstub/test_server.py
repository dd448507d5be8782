"""The shell around a session, over real sockets and pipes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest
import trio

from gdbstub.encoding import frame
from gdbstub.server import Address, Ending, StdioAddress, TcpAddress, UnixAddress, parse_address, serve
from gdbstub.target import HostFd, SliceResult, Waiting
from tests.gdbstub.fake import SIZE, FakeTarget

CONVERSATION = (
    frame(b"QStartNoAckMode") + frame(b"qSupported:multiprocess+") + frame(b"?") + frame(b"vCont;s") + b"\x03"
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":1234", TcpAddress("127.0.0.1", 1234)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:99", TcpAddress("::1", 99)),
        ("unix:/tmp/x", UnixAddress("/tmp/x")),
        ("-", StdioAddress()),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "1234", ":", ":x", ":70000", "unix:", "a:-1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        parse_address(text)


class Server:
    """Runs `serve` beside a test."""

    def __init__(self, target: FakeTarget, keep: bool = False, address: Address | None = None) -> None:
        self.target = target
        self.keep = keep
        self.address = address or TcpAddress("127.0.0.1", 0)
        self.notices: list[str] = []
        self.listening = trio.Event()
        self.ending: Ending | None = None

    async def run(self) -> None:
        self.ending = await serve(self.target, self.address, keep=self.keep, notice=self._notice)

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        self.listening.set()

    async def connect(self) -> trio.SocketStream:
        await self.listening.wait()
        return await trio.open_tcp_stream("127.0.0.1", int(self.notices[0].rpartition(" ")[2]))


async def ask(stream: trio.abc.Stream, packet: bytes) -> bytes:
    await stream.send_all(frame(packet))
    return await reply(stream)


async def reply(stream: trio.abc.Stream) -> bytes:
    data = b""
    while data[-3:-2] != b"#":
        more = await stream.receive_some()
        if not more:
            raise AssertionError(f"the connection ended after {data!r}")
        data += more
    return data.lstrip(b"+")[1:-3]


async def beside(server: Server, client: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await client()


async def test_tcp() -> None:
    server = Server(FakeTarget())

    async def client() -> None:
        async with await server.connect() as stream:
            assert await ask(stream, b"QStartNoAckMode") == b"OK"
            assert await ask(stream, b"?") == await ask(stream, b"?")
            assert (await ask(stream, b"vCont;s"))[:3] == b"T05"
            await stream.send_all(frame(b"k"))
            assert await stream.receive_some() == b""

    await beside(server, client)
    assert server.notices[0].startswith("Listening on port ")
    assert server.ending is Ending.FINISHED


async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    server = Server(FakeTarget(), address=UnixAddress(str(path)))

    async def client() -> None:
        await server.listening.wait()
        async with await trio.open_unix_socket(str(path)) as stream:
            assert await ask(stream, b"qC") == b"QC2a"
            assert await ask(stream, b"D") == b"OK"

    await beside(server, client)
    assert not path.exists()


@pytest.mark.parametrize("keep", [False, True])
async def test_pipes(keep: bool) -> None:
    ours, theirs = socket.socketpair()
    server = Server(FakeTarget(), address=StdioAddress(theirs.fileno(), theirs.fileno()), keep=keep)

    async def client() -> None:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            assert await ask(stream, b"qC") == b"QC2a"

    await beside(server, client)
    assert server.notices == []
    assert server.ending is Ending.VANISHED
    theirs.close()


async def test_a_large_reply_to_a_slow_reader() -> None:
    server = Server(FakeTarget())

    async def client() -> None:
        async with await server.connect() as stream:
            await ask(stream, b"QStartNoAckMode")
            packet = frame(b"m1000,20000")
            await stream.send_all(packet * 40)
            await trio.testing.wait_all_tasks_blocked()
            expected = 40 * (0x40000 + 4)
            while expected > 0:
                expected -= len(await stream.receive_some(1 << 20))
            assert expected == 0

    await beside(server, client)


async def test_clients_one_after_the_other_and_one_waiting() -> None:
    server = Server(FakeTarget(), keep=True)

    async def client() -> None:
        async with await server.connect() as first, await server.connect() as second:
            assert await ask(first, b"qC") == b"QC2a"
            await second.send_all(frame(b"qC"))
            assert await ask(first, b"qC") == b"QC2a"
            await first.aclose()
            assert await reply(second) == b"QC2a"
            await second.send_all(frame(b"vKill;2a"))

    # without Launch the server ends with the last process
    server.target.__class__ = type("NoLaunch", (FakeTarget,), {"launch": None})
    await beside(server, client)
    assert server.ending is Ending.FINISHED


@pytest.mark.parametrize("length", range(len(CONVERSATION) + 1))
async def test_a_client_vanishes_at_any_byte(length: int) -> None:
    target = FakeTarget()
    target.memory[0x100] = 0xEB
    server = Server(target, keep=True)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            stream = await server.connect()
            await stream.send_all(CONVERSATION[:length])
            await stream.aclose()
            async with await server.connect() as next_client:
                assert await ask(next_client, b"qC") == b"QC2a"
                assert (await ask(next_client, b"?"))[:1] == b"T"
            nursery.cancel_scope.cancel()


async def test_a_client_is_reset_while_the_target_runs() -> None:
    target = FakeTarget()
    target.memory[0xFF] = 0xEB
    server = Server(target, keep=True)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            stream = await server.connect()
            await stream.send_all(frame(b"vCont;c"))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()
            async with await server.connect() as next_client:
                assert (await ask(next_client, b"?"))[:3] in (b"T02", b"T05")
            nursery.cancel_scope.cancel()


async def test_interrupt_while_computing_and_while_blocked() -> None:
    target = FakeTarget()
    target.memory[0xFF] = 0xEB
    server = Server(target)

    async def client() -> None:
        async with await server.connect() as stream:
            await ask(stream, b"QStartNoAckMode")
            for blocked in (False, True):
                target.memory[:] = (b"\xcb" if blocked else b"\x90") * SIZE
                target.memory[0xFF] = 0xEB
                for _ in range(5):
                    await ask(stream, b"P10=0010000000000000")
                    await stream.send_all(frame(b"vCont;c"))
                    with trio.move_on_after(0.02):
                        await stream.receive_some()
                    start = monotonic()
                    await stream.send_all(b"\x03")
                    assert (await reply(stream))[:3] == b"T02"
                    assert monotonic() - start < 0.5  # 10 ms is the aim; the machine may be busy

    await beside(server, client)


class ReadsAPipe(FakeTarget):
    """Blocked until a descriptor of the server's is readable."""

    fd = -1

    def _run(self) -> SliceResult:
        if not select.select([self.fd], [], [], 0)[0]:
            return Waiting((HostFd(self.fd, select.POLLIN),))
        self.memory[:] = b"\xf4" * SIZE
        return super()._run()


async def test_waits_for_what_the_target_waits_for() -> None:
    target = ReadsAPipe()
    target.fd, writing = os.pipe()
    server = Server(target)

    async def client() -> None:
        async with await server.connect() as stream:
            await stream.send_all(frame(b"vCont;c"))
            with trio.move_on_after(0.05):
                data = await stream.receive_some()
                assert data == b"+"
                await stream.receive_some()
            os.write(writing, b"x")
            assert await reply(stream) == b"W00"

    await beside(server, client)
    os.close(target.fd)
    os.close(writing)
    assert server.ending is Ending.FINISHED


class Sleeps(FakeTarget):
    """Blocked until a moment."""

    until_ns = 0

    def _run(self) -> SliceResult:
        now = int(monotonic() * 1e9)
        self.until_ns = self.until_ns or now + 30_000_000
        if now < self.until_ns:
            return Waiting(deadline_ns=self.until_ns)
        self.memory[:] = b"\xf4" * SIZE
        return super()._run()


async def test_waits_for_a_deadline() -> None:
    server = Server(Sleeps())

    async def client() -> None:
        async with await server.connect() as stream:
            start = monotonic()
            assert await ask(stream, b"vCont;c") == b"W00"
            assert 0.03 <= monotonic() - start < 5

    await beside(server, client)


def test_another_interface_is_loud() -> None:
    from gdbstub.server import Listener

    listener = Listener(TcpAddress("0.0.0.0", 0))
    assert listener.notice.startswith("WARNING")
    assert "\nListening on port " in listener.notice
    listener.close()


class Hangs(FakeTarget):
    """Never comes back from a slice."""

    def _run(self) -> SliceResult:
        os.write(2, b"hanging\n")
        while True:
            pass


@pytest.mark.parametrize(
    ("target", "resumed", "status"),
    [("FakeTarget", False, 0), ("FakeTarget", True, 0), ("Hangs", True, -signal.SIGALRM)],
)
def test_sigterm_ends_a_server(target: str, resumed: bool, status: int) -> None:
    code = (
        "import trio, gdbstub.server; from gdbstub.server import *; from tests.gdbstub.test_server import *;"
        f"gdbstub.server.GRACE_S = {0.2 if target == 'Hangs' else 15};"
        f"target = {target}(); target.memory[255] = 0xEB;"
        "trio.run(serve, target, TcpAddress('127.0.0.1', 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=Path(__file__).resolve().parents[2]
    ) as server:
        assert server.stderr is not None
        port = int(server.stderr.readline().removeprefix(b"Listening on port "))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(frame(b"qC"))
            client.recv(100)
            if resumed:
                client.sendall(frame(b"vCont;c"))
                if target == "Hangs":
                    server.stderr.readline()
                else:
                    client.recv(1)
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=20)
    assert (server.returncode, err) == (status, b"")
