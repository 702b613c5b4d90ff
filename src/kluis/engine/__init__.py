"""The only concurrency over anchors: sealing, opening, guarding."""
