"""`qiao doctor`: what is wrong, why we think so, and how to mend it.

* `facts`: what was seen, as frozen values. `look_*` fills them: the machine, Claude Code, an engine, a server, a log.
* `check_*`: one function a check, facts in, a `Finding` or None out; nothing is asked there. `checks` lists them all.
* `replay`: Claude Code's request shapes against any Anthropic endpoint; a score sheet, point by point.
* `mending`: what `--fix` does. `examine` runs it all; `report` is the JSON.
"""
