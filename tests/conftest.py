"""For all tests: laws are about what is true, not about how busy the machine is, so examples have no deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("qiao", deadline=None)
settings.load_profile("qiao")
