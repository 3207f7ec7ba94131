"""The x86-64 architecture as data: nothing here knows of memory, Unicorn or Linux."""
