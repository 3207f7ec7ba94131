"""Sockets between the processes of one machine (unix(7)); there is no network."""
