"""A Linux machine in a library: a Unicorn CPU, an MMU, and the kernel's system-call interface.

Layers, each importing only from those to its right::

    cli > debug > machine > syscalls > kernel > loader > cpu > arch > abi > errors

`abi` and `arch` are facts, `cpu` is the only place that touches Unicorn, `kernel` holds the objects with lifetimes,
`syscalls` decodes, `machine` is the one run loop, `debug` is what a debug stub sees.
"""
