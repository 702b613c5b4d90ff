"""The part of the Transit API that a seal, a monitor and a person need."""
