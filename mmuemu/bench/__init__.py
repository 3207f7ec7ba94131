"""``mmuemu bench``: a table of workloads, run by both engines and by other emulators in interleaved rounds.

A workload is a small program (``guests``) or a step of mmuemu's own (``probes``); whatever runs it is a process whose
output must be the right one and whose CPU time is measured as a whole.
"""
