"""What a configuration means for who can open what, in sentences. No anchor is asked."""
