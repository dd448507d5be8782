"""Sockets: address families, types, levels, options, message flags, ioctls and the layouts that carry them.

Source: <linux/socket.h>, <asm-generic/socket.h>, <linux/sockios.h>, <linux/net.h>.  The numbers are those of every
ISA but MIPS, SPARC, Alpha and PA-RISC; an ISA with others maps them in its `Arch`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

SOCKADDR_STORAGE_SIZE = 128  # struct sockaddr_storage: the longest address a call takes
UNIX_PATH_MAX = 108  # sun_path of struct sockaddr_un
UIO_MAXIOV = 1024
SOCK_TYPE_MASK = 0xF
SOCK_CLOEXEC = 0o2000000
SOCK_NONBLOCK = 0o4000
SOMAXCONN = 4096
SCM_MAX_FD = 253


class AddressFamily(IntEnum):
    """Those that mean something to the emulator; any other number goes to the host as it is."""

    AF_UNSPEC = 0
    AF_UNIX = 1
    AF_INET = 2
    AF_INET6 = 10
    AF_NETLINK = 16
    AF_PACKET = 17


class SocketType(IntEnum):
    """socket(2)."""

    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    SOCK_RAW = 3
    SOCK_RDM = 4
    SOCK_SEQPACKET = 5
    SOCK_DCCP = 6
    SOCK_PACKET = 10


class Msg:
    """MSG_* of send(2) and recv(2), as plain integers (IntFlag is slow)."""

    OOB: Final = 0x1
    PEEK: Final = 0x2
    DONTROUTE: Final = 0x4
    CTRUNC: Final = 0x8
    PROBE: Final = 0x10
    TRUNC: Final = 0x20
    DONTWAIT: Final = 0x40
    EOR: Final = 0x80
    WAITALL: Final = 0x100
    CONFIRM: Final = 0x800
    ERRQUEUE: Final = 0x2000
    NOSIGNAL: Final = 0x4000
    MORE: Final = 0x8000
    WAITFORONE: Final = 0x10000
    BATCH: Final = 0x40000
    ZEROCOPY: Final = 0x4000000
    FASTOPEN: Final = 0x20000000
    CMSG_CLOEXEC: Final = 0x40000000
    CMSG_COMPAT: Final = 0x80000000


SOL_SOCKET = 1


class SocketOption(IntEnum):
    """Options of SOL_SOCKET which the emulator has to understand; the rest are bytes for the host."""

    SO_TYPE = 3
    SO_ERROR = 4
    SO_LINGER = 13
    SO_PASSCRED = 16
    SO_PEERCRED = 17
    SO_RCVTIMEO = 20
    SO_SNDTIMEO = 21
    SO_ATTACH_FILTER = 26
    SO_ACCEPTCONN = 30
    SO_PROTOCOL = 38
    SO_DOMAIN = 39
    SO_LOCK_FILTER = 44
    SO_ATTACH_BPF = 50
    SO_ATTACH_REUSEPORT_CBPF = 51
    SO_ATTACH_REUSEPORT_EBPF = 52
    SO_RCVTIMEO_NEW = 66
    SO_SNDTIMEO_NEW = 67
    SO_PASSPIDFD = 76
    SO_PEERPIDFD = 77


SO_BINDTODEVICE = 25
SO_BINDTOIFINDEX = 62

SOL_RDS = 276
SOL_XDP = 283
IPPROTO_IP = 0
IPPROTO_IPV6 = 41
IP_HDRINCL = 3
IP_PKTINFO = 8
IPV6_2292PKTINFO = 2
IPV6_HDRINCL = 36
IPV6_PKTINFO = 50
NETFILTER_REPLACE = frozenset((64, 96, 128, 129))  # {IPT,IP6T}_SO_SET_REPLACE, ARPT_, EBT_SO_SET_{ENTRIES,COUNTERS}

NETLINK_ROUTE = 0
LOOPBACK_INDEX = 1  # lo's interface index, in every network namespace

SCM_RIGHTS = 1
SCM_CREDENTIALS = 2
SCM_PIDFD = 4


class Shutdown(IntEnum):
    """shutdown(2)."""

    SHUT_RD = 0
    SHUT_WR = 1
    SHUT_RDWR = 2


FIOCLEX = 0x5451
FIONCLEX = 0x5450
FIONBIO = 0x5421
FIOASYNC = 0x5452
FIONREAD = 0x541B  # SIOCINQ
TIOCOUTQ = 0x5411  # SIOCOUTQ

FIOSETOWN = 0x8901
SIOCSPGRP = 0x8902
FIOGETOWN = 0x8903
SIOCGPGRP = 0x8904
SIOCATMARK = 0x8905
SIOCGSTAMP_OLD = 0x8906
SIOCGSTAMPNS_OLD = 0x8907
SIOCADDRT = 0x890B
SIOCDELRT = 0x890C
SIOCGIFNAME = 0x8910
SIOCGIFCONF = 0x8912
SIOCETHTOOL = 0x8946
SIOCUNIXFILE = 0x89E0
IFREQ_SIZE = 40  # struct ifreq, 64-bit
ARPREQ_SIZE = 68  # struct arpreq
# netdevice(7), arp(7): the requests whose structure holds no pointer
INTERFACE_GETTERS = frozenset(
    (0x8913, 0x8915, 0x8917, 0x8919, 0x891B, 0x891D, 0x8921, 0x8927, 0x8933, 0x8935, 0x8942, 0x8970)
)  # SIOCGIF FLAGS ADDR DSTADDR BRDADDR NETMASK METRIC MTU HWADDR INDEX PFLAGS TXQLEN MAP
INTERFACE_SETTERS = frozenset(
    (0x8914, 0x8916, 0x8918, 0x891A, 0x891C, 0x891E, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8934, 0x8936, 0x8937,
     0x8943, 0x8971)
)  # fmt: skip  # SIOCSIF*, ADDMULTI, DELMULTI, DIFADDR, SIFHWBROADCAST
ARP_REQUESTS = frozenset((0x8953, 0x8954, 0x8955))  # SIOCDARP, SIOCGARP, SIOCSARP

# struct ucred: pid, uid, gid
UCRED = struct.Struct("=iII")

ARPHRD_LOOPBACK = 772


def is_loopback(address: bytes) -> bool:
    """Whether a sockaddr_in or sockaddr_in6 (mapped addresses too) names this host only."""
    family = int.from_bytes(address[:2], "little")
    if family == AddressFamily.AF_INET:
        return address[4:5] == b"\x7f"
    if family == AddressFamily.AF_INET6:
        host = address[8:24]
        return host == b"\0" * 15 + b"\1" or host[:13] == b"\0" * 10 + b"\xff\xff\x7f"
    return False


def is_wildcard(address: bytes) -> bool:
    """Whether a sockaddr_in or sockaddr_in6 is INADDR_ANY or in6addr_any."""
    family = int.from_bytes(address[:2], "little")
    if family == AddressFamily.AF_INET:
        return address[4:8] == b"\0\0\0\0"
    if family == AddressFamily.AF_INET6:
        return address[8:24] in (b"\0" * 16, b"\0" * 10 + b"\xff\xff\0\0\0\0")
    return False
