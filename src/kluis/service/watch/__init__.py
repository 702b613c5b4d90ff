"""Watched servers in the running process: the watcher, its metrics, its monitor and its hooks."""
