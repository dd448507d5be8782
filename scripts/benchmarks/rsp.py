"""A small synchronous client of the remote protocol, for measuring: packets out, packets in, nothing understood."""

from __future__ import annotations

import re
import socket
import time


class Client:
    """One connection in no-ack mode."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._acks = True
        features = self.ask("qSupported:multiprocess-;swbreak+;hwbreak+;vContSupported+;no-resumed+")
        self.packet_size = 1024
        for feature in features.split(b";"):
            if feature.startswith(b"PacketSize="):
                self.packet_size = int(feature[11:], 16)
        if self.ask("QStartNoAckMode") == b"OK":
            self._acks = False
        self.conditional = b"ConditionalBreakpoints+" in features
        self.ask("?")

    def close(self) -> None:
        self.socket.close()

    def send(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 255))

    def receive(self) -> bytes:
        """The next packet's contents, run-length encoding expanded."""
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start) if start >= 0 else -1
            if 0 <= end <= len(self._buffer) - 3:
                break
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server has gone")
            self._buffer += data
        body, self._buffer = self._buffer[start + 1 : end], self._buffer[end + 3 :]
        if self._acks:
            self.socket.sendall(b"+")
        return expand(body) if b"*" in body else body

    def ask(self, text: str | bytes) -> bytes:
        self.send(text)
        return self.receive()

    def interrupt(self) -> bytes:
        self.socket.sendall(b"\x03")
        return self.receive()

    def resume(self, text: str) -> bytes:
        """Resume; the stop reply, console output skipped."""
        reply = self.ask(text)
        while reply[:1] == b"O" and reply != b"OK":
            reply = self.receive()
        return reply


def expand(body: bytes) -> bytes:
    """Undo run-length encoding: in one substitution, so that it costs the server's figures little."""
    return re.sub(rb"(?s)(.)\*(.)", lambda run: run[1] * (run[2][0] - 28), body)


def rate(client: Client, packet: str | bytes, budget_s: float) -> float:
    """Round trips a second of one packet."""
    count, start = 0, time.perf_counter()
    while True:
        for _ in range(20):
            client.ask(packet)
        count += 20
        elapsed = time.perf_counter() - start
        if elapsed > budget_s:
            return count / elapsed
