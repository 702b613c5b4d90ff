"""The running service: the guards of this process, and the socket to talk to it."""
