"""A GDB remote-protocol server for anything that can be debugged.

Rule: this package knows the protocol and nothing of what is behind it.  A target implements `gdbstub.target.Target` and
whichever Protocols of `gdbstub.abilities` it can; what the server advertises is computed from that.

Layers, upward: errors < encoding, thread_id, signals < framing, stop, tdesc, agent, target, abilities < registry
< packets < session < server.  Everything below `server` is sans-IO: bytes in, bytes out.
"""
