"""For all tests: how Hypothesis draws its examples.

Laws are about what is true, not about how busy the machine is: no deadline. And a run says the same today and tomorrow:
the examples are derived from the test, so that a failure always belongs to a change. For a search with new ones:
`pytest --hypothesis-profile=search`.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("qiao", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("qiao")
