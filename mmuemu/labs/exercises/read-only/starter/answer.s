# protect(): store 42 at `page`, then make that page read-only
protect:
    lea rdi, [rip + page]
    ret
