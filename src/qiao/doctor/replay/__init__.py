"""Claude Code's request shapes (2.1.330) against any Anthropic endpoint: a score sheet, point by point.

* `shapes`: the requests. `sheet`: what a point and a sheet are. `points_*`: the points. `run`: all of them, bounded.
"""
