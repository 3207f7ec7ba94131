"""The Linux x86-64 system calls: one function each, gathered in one table."""
