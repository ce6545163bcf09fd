"""A snapshot of the machine. Unknown stays None; parsers are tested from captured text."""
