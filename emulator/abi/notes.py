"""Note types of core files and register sets (NT_* of <linux/elf.h>), and who owns them."""

from __future__ import annotations

NT_PRSTATUS = 1
NT_PRPSINFO = 3
NT_AUXV = 6
NT_SIGINFO = 0x53494749
NT_FILE = 0x46494C45

#: Register sets in the order of a core file: type -> name; the first two are owned by "CORE", the others by "LINUX".
REGISTER_SETS = {
    NT_PRSTATUS: "NT_PRSTATUS",
    2: "NT_PRFPREG",
    0x202: "NT_X86_XSTATE",
    0x401: "NT_ARM_TLS",
    0x404: "NT_ARM_SYSTEM_CALL",
}
