"""What kluis.toml may say, as types."""
