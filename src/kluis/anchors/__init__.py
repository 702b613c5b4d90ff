"""Places where trust lives: one file a kind, one contract (base.py), loaded on demand."""
