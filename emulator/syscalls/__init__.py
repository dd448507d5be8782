"""System calls: thin decoders by family over the kernel's objects.  One decorated function adds one."""
