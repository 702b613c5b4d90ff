"""Property tests have no deadline: how long one example takes says nothing on a busy machine."""

from hypothesis import settings

settings.register_profile("kluis", deadline=None)
settings.load_profile("kluis")
