    .data
payload:
    .zero 64                # the buffer
                            # to be done: the return address, and the code
payload_end:
    .quad 0
