"""What happened in a run as one page (``--report``), and a process's memory map as a figure (``--svg``)."""
