"""The ``awskms`` anchor: a key in AWS KMS."""
