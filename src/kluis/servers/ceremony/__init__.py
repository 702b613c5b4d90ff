"""Making a server safely, and renewing its keys: what is decided, and the calls for it."""
