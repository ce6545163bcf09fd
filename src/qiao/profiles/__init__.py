"""Facts about model families and engines, as data, each with its reason and source.

* `find(model_name)` gives the `Profile` of a model; an unknown name gets a careful default.
* `engines.target_for` gives the `Target` of an engine: what its version of the OpenAI protocol understands.

Facts that were measured on a live server win over these; decisions belong to `qiao.policies`.
"""

from __future__ import annotations

from functools import lru_cache

from qiao.profiles.families import FAMILIES, UNKNOWN
from qiao.profiles.profile import Profile, match

__all__ = ["FAMILIES", "UNKNOWN", "Profile", "find"]


@lru_cache(maxsize=256)  # asked several times a request, always for the few models that are served
def find(*names: str | None) -> Profile:
    """The profile of a model that is known by `names`: the path it was loaded from, the name it is served under.

    The first name of a known family decides; without one, the last name gives the unknown model its plain id.
    """
    known = [name for name in names if name]
    found = [match(name, FAMILIES, UNKNOWN) for name in known] or [match("", FAMILIES, UNKNOWN)]
    return next((profile for profile in found if profile.family != UNKNOWN.family), found[-1])
