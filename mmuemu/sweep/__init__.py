"""``mmuemu sweep``: a matrix of programs, seeds, layouts, engines, CPUs and mitigations, run on all cores, kept in a file."""
