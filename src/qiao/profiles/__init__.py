"""Facts about model families and engines, as data, each with its reason and source.

* `find(model_name)` gives the `Profile` of a model; an unknown name gets a careful default.
* `engines.target_for` gives the `Target` of an engine: what its version of the OpenAI protocol understands.

Facts that were measured on a live server win over these; decisions belong to `qiao.policies`.
"""

from __future__ import annotations

from qiao.profiles.families import FAMILIES, UNKNOWN
from qiao.profiles.profile import Profile, match

__all__ = ["FAMILIES", "UNKNOWN", "Profile", "find"]


def find(model_name: str) -> Profile:
    """The profile of the model that the engine serves as `model_name` (also a path or a file name)."""
    return match(model_name, FAMILIES, UNKNOWN)
