"""Facts of the Linux kernel's headers: numbers and layouts, no behaviour."""
