"""Guests that serve clients of the host."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

from scripts.benchmarks.peers import Guest, Measure, Peer, free_port, listening

SECONDS = 1.0
MESSAGE = 64  # bytes
REQUESTS = 20_000


def tcp_echoes(peer: Peer, guest: Guest) -> float:
    """Messages a second, one under way at a time, from a client of the host to a guest and back."""
    port = free_port()
    with (
        listening(peer.run(guest.command("tcp", port)), port),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            client.sendall(bytes(MESSAGE))
            left = MESSAGE
            while left:
                got = len(client.recv(left))
                if not got:
                    raise RuntimeError("the guest hung up")
                left -= got
            count += 1
        return count / (time.perf_counter() - start)


def redis_requests(command: str) -> Measure:
    """Requests a second of redis-benchmark on the host (50 connections) to a redis-server in the guest."""

    def measure(peer: Peer, guest: Guest) -> float:
        server, client = shutil.which("redis-server"), shutil.which("redis-benchmark")
        if server is None or client is None:
            raise NotImplementedError
        port = free_port()
        with listening(peer.run([server, "--port", str(port), "--save", "", "--appendonly", "no"]), port):
            words = [client, "-p", str(port), "-t", command, "-n", str(REQUESTS), "--csv"]
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
        line = next(line for line in done.stdout.splitlines() if line.upper().startswith(f'"{command.upper()}"'))
        return float(line.split(",")[1].strip('"'))

    return measure
