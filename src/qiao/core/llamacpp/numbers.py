"""JSON numbers in a range, as GBNF."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from qiao.core.llamacpp.rules import Node, Rules, literal

_MOST_DIGITS = 10
_LARGEST = 10**_MOST_DIGITS - 1
_FRACTION_DIGITS = 6
_MOST_MULTIPLES = 200


def integer(rules: Rules, low: int | None, high: int | None, multiple: float | None = None) -> Node | None:
    """A whole number from `low` to `high`, a multiple of `multiple`; None where there is none."""
    if multiple and multiple > 0 and not (1 / multiple).is_integer():
        return _multiples(rules, low, high, multiple)
    if low is None and high is None:
        return Node(rules.add(f'"0" | "-"? [1-9] [0-9]{{0,{_MOST_DIGITS - 1}}}'), 1, _MOST_DIGITS + 1)
    # An open end reaches as far as a person would write, and past the end that is given.
    least = low if low is not None else min(-_LARGEST, (high or 0) - _LARGEST)
    most = high if high is not None else max(_LARGEST, (low or 0) + _LARGEST)
    if least > most:
        return None
    alternatives: list[str] = []
    if least < 0:
        alternatives.extend(f'"-" {text}' for text in _natural(max(1, -most), -least))
    if most >= 0:
        alternatives.extend(_natural(max(0, least), most))
    longest = max(len(str(least)), len(str(most)))
    return Node(rules.add(" | ".join(alternatives)), 1, longest)


def number(
    rules: Rules,
    minimum: float | None,
    maximum: float | None,
    *,
    above: float | None = None,
    below: float | None = None,
    multiple: float | None = None,
) -> Node | None:
    """A number from `minimum` to `maximum`, more than `above`, less than `below`; None where there is none."""
    low, high = whole_bounds(minimum, maximum, above, below)
    if multiple:
        return integer(rules, low, high, multiple)
    if low is None and high is None:
        whole = f'("0" | "-"? [1-9] [0-9]{{0,{_MOST_DIGITS - 1}}})'
        longest = _MOST_DIGITS + 2 + _FRACTION_DIGITS
        return Node(rules.add(f'{whole} ("." [0-9]{{1,{_FRACTION_DIGITS}}})?'), 1, longest)
    nodes = []
    whole_number = integer(rules, low, high)
    if whole_number is not None:
        nodes.append(whole_number)
        # n.d lies between n and n + 1: with both ends inside the range, every fraction is.
        floor = max(0, low) if low is not None else 0
        if high is None or floor <= high - 1:
            before = integer(rules, floor, None if high is None else high - 1)
            if before is not None:
                text = rules.add(f'{before.text} "." [0-9]{{1,{_FRACTION_DIGITS}}}')
                nodes.append(Node(text, before.shortest + 2, before.longest + 1 + _FRACTION_DIGITS))
    else:
        nodes.extend(literal(text) for text in _between(minimum, maximum, above, below))
    return rules.alternatives(nodes) if nodes else None


def whole_bounds(
    minimum: float | None, maximum: float | None, above: float | None, below: float | None
) -> tuple[int | None, int | None]:
    """The least and the greatest whole number that the bounds allow."""
    lows = [math.ceil(minimum)] if minimum is not None else []
    if above is not None:
        lows.append(math.floor(above) + 1)
    highs = [math.floor(maximum)] if maximum is not None else []
    if below is not None:
        highs.append(math.ceil(below) - 1)
    return (max(lows) if lows else None), (min(highs) if highs else None)


def _between(minimum: float | None, maximum: float | None, above: float | None, below: float | None) -> Iterator[str]:
    """A few numbers of a range that holds no whole one."""
    low = max(bound for bound in (minimum, above) if bound is not None)
    high = min(bound for bound in (maximum, below) if bound is not None)
    for candidate in (low, high, (low + high) / 2, low + (high - low) / 4, low + (high - low) * 3 / 4):
        is_inside = (minimum is None or candidate >= minimum) and (maximum is None or candidate <= maximum)
        is_inside = is_inside and (above is None or candidate > above) and (below is None or candidate < below)
        if is_inside:
            yield repr(float(candidate))


def _multiples(rules: Rules, low: int | None, high: int | None, multiple: float) -> Node | None:
    # A step that is no whole number (1.5) has whole multiples too: those of its fraction's numerator.
    step = Fraction(repr(multiple)).numerator
    if step <= 0:
        return None
    first = math.ceil(low / step) if low is not None else 0 if high is None or high >= 0 else math.floor(high / step)
    if low is None and first <= 0:
        first = min(first, (math.floor(high / step) if high is not None else 0)) - _MOST_MULTIPLES // 2
    last = math.floor(high / step) if high is not None else first + _MOST_MULTIPLES
    values = [step * factor for factor in range(first, min(last, first + _MOST_MULTIPLES) + 1)]
    return rules.alternatives([literal(str(value)) for value in values]) if values else None


def _natural(low: int, high: int) -> list[str]:
    """Expressions that together match every natural number from `low` to `high`, without leading zeros."""
    out = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (length - 1) if length > 1 else 0)
        most = min(high, 10**length - 1)
        if least <= most:
            out.append(_digits(str(least), str(most)))
    return out


def _digits(low: str, high: str) -> str:
    """Numbers of one length from `low` to `high`."""
    if low == high:
        return f'"{low}"'
    if set(low) == {"0"} and set(high) == {"9"}:
        return "[0-9]" if len(low) == 1 else f"[0-9]{{{len(low)}}}"
    if len(low) == 1:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return f'"{low[0]}" {_digits(low[1:], high[1:])}'
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    alternatives = []
    if set(low[1:]) != {"0"}:
        alternatives.append(f'"{first}" {_digits(low[1:], "9" * rest)}')
        first += 1
    tail = None
    if set(high[1:]) != {"9"}:
        tail = f'"{last}" {_digits("0" * rest, high[1:])}'
        last -= 1
    if first <= last:
        lead = f'"{first}"' if first == last else f"[{first}-{last}]"
        alternatives.append(f"{lead} " + ("[0-9]" if rest == 1 else f"[0-9]{{{rest}}}"))
    if tail is not None:
        alternatives.append(tail)
    return alternatives[0] if len(alternatives) == 1 else "(" + " | ".join(alternatives) + ")"
