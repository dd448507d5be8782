"""Real programs of the distribution print, natively and emulated, the same bytes and end with the same status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.native.harness import ROOT

pytestmark = pytest.mark.timeout(300)
TIMEOUT_S = 250


@dataclass(frozen=True, slots=True)
class Program:
    """A command line; `needs` are programs it wants, `slow` keeps it out of the quick run."""

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    slow: bool = True


def shell(text: str, *needs: str, slow: bool = True) -> Program:
    return Program(("bash", "-c", text), ("bash", *needs), slow)


PYTHON_STDLIB = """
import collections, datetime, decimal, functools, hashlib, itertools, json, math, re, statistics, struct, zlib
from fractions import Fraction
print(json.dumps({"pi": math.pi, "f": str(Fraction(1, 3) + Fraction(1, 7))}, sort_keys=True))
print(decimal.Decimal(2).sqrt(), datetime.date(2024, 2, 29).isoformat(), statistics.mean([1, 2, 4]))
print(hashlib.sha256(b"x" * 100000).hexdigest(), zlib.crc32(b"abc"), struct.pack(">d", 1.5))
print(re.sub(r"(\\w+) (\\w+)", r"\\2 \\1", "hello world"), sorted({3, 1, 2}), list(itertools.permutations("abc", 2))[:3])
print(functools.reduce(lambda a, b: a * b, range(1, 30)), collections.Counter("mississippi").most_common(2))
"""
SQL = """
create table t(a integer primary key, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000) insert into t select i, 'row ' || i from n;
create index x on t(b);
select count(*), sum(a), max(b) from t where b like '%7%';
begin; update t set b = 'none' where a % 3 = 0; rollback;
select group_concat(a) from (select a from t order by b desc limit 5);
pragma integrity_check;
"""
PERL = (
    'my %h; $h{$_ % 7} .= chr(65 + $_ % 26) for 1..500; print join(",", map {"$_=" . length $h{$_}} sort keys %h), "\\n";'
    'print sprintf("%.10f %s\\n", atan2(1,1)*4, join " ", sort { $b <=> $a } (3,1,2)); $_ = "a1b22"; print "$1\\n" while /(\\d+)/g;'
)

PROGRAMS: dict[str, Program] = {
    "true": Program(("/bin/true",)),
    "false": Program(("/bin/false",)),
    "echo": Program(("/bin/echo", "-e", "a\\tb", "c")),
    "ls": Program(("ls", "-lR", "--time-style=+%s", "tree")),
    "ls missing": Program(("ls", "/does/not/exist")),
    "cat": Program(("cat", "tree/one", "tree/deep/two")),
    "find": shell("find tree | sort", "find"),
    "bash builtins": shell("x=5; for i in {1..20}; do ((x += i)); done; printf '%s\\n' $x ${BASH_VERSION%%.*} \"${x/2/two}\""),
    "bash arrays": shell("declare -A m=([a]=1 [b]=2); echo ${#m[@]} ${m[b]}; [[ abc =~ b(.) ]] && echo ${BASH_REMATCH[1]}"),
    "bash pipeline": shell("seq 1 1000 | grep 7 | sort -rn | head -3 | tr 1 x; echo ${PIPESTATUS[@]}"),
    "bash jobs": shell("sleep 0.2 & wait $!; echo $?; (exit 3); echo $?; trap 'echo term' TERM; kill $$; wait; echo end"),
    "bash here document": shell("cat <<X | wc -c\n$(seq 100)\nX\nread a b <<<'one two'; echo $b; echo $(< tree/one)"),
    "bash redirections": shell("exec 5>out; echo five >&5; exec 5>&-; cat out; echo x 2>&1 >/dev/null; cat < <(echo sub)"),
    "bash killed": shell("kill -9 $$"),
    "dash": Program(("/bin/sh", "-c", "echo $((6*7)); exit 9")),
    "python version": Program(("/usr/bin/python3", "-S", "-c", "print(6 * 7)"), ("/usr/bin/python3",)),
    "python stdlib": Program(("/usr/bin/python3", "-c", PYTHON_STDLIB), ("/usr/bin/python3",)),
    "python threads": Program(
        (
            "/usr/bin/python3",
            "-c",
            "import threading, queue\nq = queue.Queue()\n"
            "ts = [threading.Thread(target=lambda i=i: q.put(i * i)) for i in range(8)]\n"
            "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sorted(q.queue))",
        ),
        ("/usr/bin/python3",),
    ),
    "python subprocess": Program(
        ("/usr/bin/python3", "-c", "import subprocess; print(subprocess.run('echo hi; exit 4', shell=True, capture_output=True))"),
        ("/usr/bin/python3",),
    ),
    "python sockets": Program(
        (
            "/usr/bin/python3",
            "-c",
            "import socket, threading\ns = socket.create_server(('127.0.0.1', 0))\n"
            "threading.Thread(target=lambda: (lambda c: (c.sendall(c.recv(99).upper()), c.close()))(s.accept()[0])).start()\n"
            "c = socket.create_connection(s.getsockname()); c.sendall(b'over tcp'); print(c.recv(99))",
        ),
        ("/usr/bin/python3",),
    ),
    "python exception": Program(("/usr/bin/python3", "-c", "1/0"), ("/usr/bin/python3",)),
    "python asyncio": Program(
        (
            "/usr/bin/python3",
            "-c",
            "import asyncio\nasync def f(i): await asyncio.sleep(0.01 * i); return i\n"
            "print(asyncio.run(asyncio.wait_for(asyncio.gather(*map(f, range(5))), 5))) if 0 else "
            "print(asyncio.new_event_loop().run_until_complete(f(2)))",
        ),
        ("/usr/bin/python3",),
    ),
    "sqlite": Program(("sqlite3", "db", SQL), ("sqlite3",)),
    "sqlite writers": shell(
        "sqlite3 w 'create table t(a)'; for i in 1 2 3; do sqlite3 -cmd '.timeout 60000' w "
        "\"insert into t values($i)\" & done; wait; sqlite3 w 'select sum(a) from t'",
        "sqlite3",
    ),
    "perl": Program(("perl", "-e", PERL), ("perl",)),
    "openssl digest": shell("head -c 3000000 /dev/zero | openssl dgst -sha512 -r; openssl dgst -md5 tree/one", "openssl"),
    "openssl cipher": shell(
        "openssl enc -aes-256-cbc -K $(printf 'ab%.0s' {1..32}) -iv $(printf '01%.0s' {1..16}) -in numbers | sha256sum", "openssl"
    ),
    "openssl prime": Program(("openssl", "prime", "-hex", "FFFFFFFFFFFFFFC5"), ("openssl",)),
    "sha256sum": Program(("sha256sum", "large")),
    "sort a million": shell("sort -n million | md5sum"),
    "awk": shell("awk '{s += $1 * 2} END {print s, NR}' numbers", "awk"),
    "sed": shell("sed -n '/9$/{s/^/n/;p}' numbers | tail -2"),
    "gzip": shell("gzip -9c numbers | gunzip | cmp - numbers && echo same; gzip -9nc numbers | wc -c"),
    "tar": shell("tar cf - tree --owner=0 --group=0 --mtime=@0 --sort=name | tar tvf - --utc"),
    "xargs": shell("seq 20 | xargs -n3 -P1 echo"),
    "diff": shell("diff <(seq 10) <(seq 2 11)"),
    "date": Program(("date", "-u", "-d", "@86400", "+%F %T")),
    "env": Program(("env",)),
    "busybox": shell("busybox sh -c 'echo $((1+2)); seq 3 | busybox tac'; busybox md5sum tree/one", "busybox"),
    "lua": Program(("lua5.4", "-e", "local t={} for i=1,9 do t[i]=i^2 end print(table.concat(t, ' '), math.pi, _VERSION)"), ("lua5.4",)),
    "git": shell(
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='@0 +0000' GIT_COMMITTER_DATE='@0 +0000'; git init -q r && cd r && "
        "git config user.email a@b && git config user.name n && cp -r ../tree . && git add . && git commit -qm one && "
        "git rev-parse HEAD && git gc -q && git fsck && git log --stat --oneline",
        "git",
    ),
    "gcc hello": shell(
        'printf \'#include <stdio.h>\\nint main(){puts("hello");return 5;}\' > h.c && gcc -O2 h.c -o h && ./h; echo $?', "gcc"
    ),
    "make -j4": shell(
        "for i in 1 2 3 4 5 6; do printf 'o%s:\\n\\t@echo made > o%s\\n' $i $i; done > m; "
        "echo 'all: o1 o2 o3 o4 o5 o6' >> m; make -s -j4 -f m all && cat o? | sort | uniq -c",
        "make",
    ),
    "strace": shell("strace -f -e trace=write,openat -o log /bin/echo traced; grep -c write log", "strace"),
    "redis": shell(
        "redis-server --port 0 --unixsocket ./s --save '' --daemonize no --logfile log & p=$!; "
        "for i in $(seq 100); do redis-cli -s s ping >/dev/null 2>&1 && break; sleep 0.1; done; "
        "redis-cli -s s set k v; redis-cli -s s get k; redis-cli -s s incrby n 41; redis-cli -s s lpush l a b c; "
        "redis-cli -s s lrange l 0 -1; redis-cli -s s shutdown nosave; wait $p; echo $?",
        "redis-server",
        "redis-cli",
    ),
    "curl file": shell("curl -s file://$PWD/tree/one; curl -s file:///none; echo $?", "curl"),
    "http server": shell(
        "/usr/bin/python3 -u -m http.server --bind 127.0.0.1 0 > log 2>&1 & p=$!; "
        "for i in $(seq 200); do grep -q 'port [0-9]' log && break; sleep 0.05; done; "
        "port=$(sed -n 's/.*port \\([0-9]*\\).*/\\1/p' log); curl -s http://127.0.0.1:$port/tree/one; kill $p; wait $p; echo $?",
        "curl",
        "/usr/bin/python3",
    ),
}  # fmt: skip


def fixture(folder: Path) -> None:
    """The same files for both runs."""
    (folder / "tree/deep/deeper").mkdir(parents=True)
    (folder / "tree/one").write_text("the first file\n")
    (folder / "tree/deep/two").write_text("the second file\n" * 30)
    (folder / "tree/link").symlink_to("deep/two")
    (folder / "tree/deep/deeper/empty").touch()
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    (folder / "numbers").write_text("".join(f"{i * 7919 % 10007}\n" for i in range(20000)))


def big_files(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(range(256)) * 4 * 1024 * 16)
    (folder / "million").write_text("".join(f"{i * 7919 % 1000003}\n" for i in range(1000000)))


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="emugdb-p-") as made:
        folder = Path(made)
        fixture(folder)
        if name in ("sha256sum", "sort a million"):
            big_files(folder)
        yield folder


def outcome(name: str, emulated: bool, options: tuple[str, ...] = ()) -> tuple[int, bytes, bytes]:
    """Status, standard output and standard error of one run, in a directory of its own made alike."""
    program = PROGRAMS[name].command
    command = list(program)
    # PYTHONPATH is the emulator's; the guest must not see it, neither natively.
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    if emulated:
        path = shutil.which(program[0], path=environment["PATH"]) or program[0]
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
                   "from emulator.cli import main; main()", "--run", *options, "--argv0", program[0], path, *program[1:]]  # fmt: skip
    with workplace(name) as folder:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, umask=0o22
        )  # fmt: skip
        place = str(folder).encode()
        # A shell would see 128 + the signal of either.
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return status, done.stdout.replace(place, b"HERE"), done.stderr.replace(place, b"HERE")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if program.slow else ()) for name, program in PROGRAMS.items()]
)
def test_same_bytes_and_status(name: str) -> None:
    absent = [need for need in PROGRAMS[name].needs if shutil.which(need) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    assert outcome(name, emulated=True) == outcome(name, emulated=False)
