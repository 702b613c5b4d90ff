"""The ``tang`` anchor: a Tang server in the same network."""
