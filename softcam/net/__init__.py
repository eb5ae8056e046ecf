"""Sockets that never block: the event loop, and one system call that sends to many of them."""
