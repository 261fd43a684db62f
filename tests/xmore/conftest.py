from hypothesis import settings

# Machines that run tests are shared: how long one example takes says nothing of the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
