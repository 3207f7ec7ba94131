"""The Linux kernel seen by guests: address spaces, faults, files, system calls."""
