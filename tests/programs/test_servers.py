"""Servers run in the emulator and are used from the host: redis, nginx with workers, openssl s_server."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gdb.clients import free_port, missing, wait_for_listener
from tests.native.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT),
}


@contextlib.contextmanager
def emulated_server(command: list[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program under --run that listens on a port of the host; ended by SIGTERM."""
    words = [sys.executable, "-m", "emulator", "--run", *command]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            words, cwd=folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )  # fmt: skip
    try:
        wait_for_listener(port, process)
        yield process
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {(folder / 'log').read_text(errors='replace')[-2000:]}") from None
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def host(*words: str, text: str | None = None, timeout_s: float = 60) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, input=text, timeout=timeout_s, env={"PATH": os.environ["PATH"]}
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_redis_and_a_benchmark_from_the_host(tmp_path: Path) -> None:
    if reason := missing("redis-server", "redis-cli", "redis-benchmark"):
        pytest.skip(reason)
    port = free_port()
    command = ["/usr/bin/redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1", "--appendonly", "no"]
    with emulated_server(command, port, tmp_path):
        client = ("redis-cli", "-p", str(port))
        assert host(*client, "set", "key", "value") == "OK\n"
        assert host(*client, "get", "key") == "value\n"
        assert host(*client, "eval", "return redis.call('incrby', 'n', 41)", "0") == "41\n"
        report = host("redis-benchmark", "-p", str(port), "-n", "2000", "-c", "10", "-t", "set,get", "--csv")
        rates = [float(rate) for rate in re.findall(r'^"[SG]ET","([0-9.]+)"', report, re.MULTILINE)]
        assert len(rates) == 2
        assert min(rates) > 100


def test_nginx_serves_the_host(tmp_path: Path) -> None:
    if reason := missing("nginx", "curl"):
        pytest.skip(reason)
    if os.getuid():
        pytest.skip("nginx's workers change their user: needs root")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="emugdb-nginx-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "page").write_text("served from inside\n" * 1000)
        (folder / "conf").write_text(
            f"daemon off; master_process on; worker_processes 2; pid {folder}/pid; error_log {folder}/error;\n"
            "events {}\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{ root {folder}; }} }} }}\n"
        )
        command = ["/usr/sbin/nginx", "-c", str(folder / "conf"), "-p", str(folder)]
        with emulated_server(command, port, folder) as server:
            for _ in range(5):
                assert host("curl", "-s", f"http://127.0.0.1:{port}/page") == "served from inside\n" * 1000
            headers = host("curl", "-sI", f"http://127.0.0.1:{port}/none")
            assert headers.startswith("HTTP/1.1 404")
            server.terminate()
            assert server.wait(20) in (0, 143, -15)


def test_openssl_speaks_tls_with_the_host(tmp_path: Path) -> None:
    if reason := missing("openssl"):
        pytest.skip(reason)
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", certificate, "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    command = [
        "/usr/bin/openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-key",
        str(key),
        "-cert",
        str(certificate),
        "-www",
    ]
    with emulated_server(command, port, tmp_path):
        words = [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{port}",
            "-CAfile",
            str(certificate),
            "-quiet",
            "-verify_return_error",
        ]
        answer = host(*words, "-servername", "localhost", "-ign_eof", text="GET / HTTP/1.0\r\n\r\n")
        assert "HTTP/1.0 200 ok" in answer
        assert "TLSv1.3" in answer


def test_a_second_bind_of_the_same_path_fails_and_the_program_goes_on(tmp_path: Path) -> None:
    """The promise of issue 3: EADDRINUSE, not the end of the program."""
    if reason := missing("gcc"):
        pytest.skip(reason)
    source = tmp_path / "bind.c"
    source.write_text(r"""
        #include <errno.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        int main(void) {
            struct sockaddr_un a = {AF_UNIX, "path"};
            int one = socket(AF_UNIX, SOCK_STREAM, 0), two = socket(AF_UNIX, SOCK_STREAM, 0);
            printf("%d\n", bind(one, (void *)&a, sizeof a));
            int second = bind(two, (void *)&a, sizeof a);
            printf("%d %d\n", second, errno == EADDRINUSE);
            strcpy(a.sun_path, "other");
            printf("%d\n", bind(two, (void *)&a, sizeof a));
            return 3;
        }
    """)
    subprocess.run(["gcc", "-w", "-o", tmp_path / "bind", source], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "emulator", "--run", "./bind"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "0\n-1 1\n0\n")


def test_a_guest_server_and_a_host_client_share_loopback(tmp_path: Path) -> None:
    port = free_port()
    code = (
        "import socket\n"
        f"s = socket.create_server(('127.0.0.1', {port}))\n"
        "for _ in range(3):\n"
        "    c, _ = s.accept()\n"
        "    while data := c.recv(65536): c.sendall(data[::-1])\n"
        "    c.close()\n"
    )
    if reason := missing("/usr/bin/python3"):
        pytest.skip(reason)
    with emulated_server(["/usr/bin/python3", "-S", "-c", code], port, tmp_path) as server:
        for size in (1, 5000, 60000):
            with socket.create_connection(("127.0.0.1", port), 20) as client:
                client.sendall(bytes(range(256)) * (size // 256) + b"end")
                received = b""
                while not received.endswith(b"\x00") and len(received) < size // 256 * 256 + 3:
                    received += client.recv(65536)
                assert sorted(received) == sorted(bytes(range(256)) * (size // 256) + b"end")
        deadline = time.monotonic() + 10
        while server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.poll() == 0
