"""``mmuemu sweep``: programs x seeds x layouts x engines x CPUs x mitigations on all cores, kept in one file."""
