"""A plan as files: start scripts, units, manifests. Pure: a Plan goes in, names and texts come out.

`render` knows the formats; who writes the files, and whether over existing ones, is the caller's affair (`stamp` marks
each text so that a changed file can be told from one that was only written).
"""

from __future__ import annotations

from qiao.exports.render import FORMATS, Format, render
from qiao.exports.settings import Settings

__all__ = ["FORMATS", "Format", "Settings", "render"]
