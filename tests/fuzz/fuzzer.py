"""One process of libFuzzer: `python -m tests.fuzz.fuzzer PROGRAM ARGUMENTS`, where PROGRAM starts it once more.

Nothing of qiao may be imported before its instructions are counted, so this file knows only the corpus.
"""

from __future__ import annotations

import sys
import traceback

from tests.fuzz.corpus import CRASHERS, load, save

LONGEST = 400
"""Bytes of an input: enough for two calls and their surroundings, few enough for thousands of runs a minute."""


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["qiao.core"]):
        from tests.fuzz import laws
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            laws.hold(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} {place.filename}:{place.lineno}"
            if key not in seen:
                seen.add(key)
                save(CRASHERS, [*load(CRASHERS), data])
                print(f"a law is broken: {key}\n{data!r}\n{traceback.format_exc()}", file=sys.stderr, flush=True)

    atheris.Setup(sys.argv[1:], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
