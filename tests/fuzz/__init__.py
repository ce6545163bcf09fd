"""Fuzzing of everything that reads what a model or an engine wrote: the laws, a search that breaks them, its corpus.

`make fuzz` searches (an hour, one core) with atheris in an environment of its own; what it kept lies in `inputs/` and
is replayed by `test_corpus.py` in every test run. A crasher that was found stays there as well, and as an example in
the property tests where it says something to a reader.
"""
