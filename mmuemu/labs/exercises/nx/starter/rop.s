    .data
payload:
    .zero 64                # the buffer
                            # to be done: addresses, and what is popped
payload_end:
    .quad 0
