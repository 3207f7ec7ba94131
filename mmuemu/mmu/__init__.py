"""The walk: one linear address, one access and one paging state in, a translation or a fault out."""
