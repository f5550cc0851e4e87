"""Settings of the whole suite."""

from hypothesis import settings

# The first call of a torch operator may take a second; how long an example takes says nothing here.
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")
