"""The devices of a PC-like machine as state machines: driven by port and MMIO accesses and by counted instructions.

Nothing here knows of memory, Unicorn or the host's time: what a device does follows from the accesses it saw and
the instructions that were counted, so the same run gives the same interrupts at the same instructions.
"""
