"""System V IPC and POSIX message queues: objects with names that outlive the processes that use them."""
