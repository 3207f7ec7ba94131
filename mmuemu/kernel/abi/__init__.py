"""Numbers and structures of the Linux x86-64 user ABI."""
