"""The table of remedies as a page for people: what an engine says, why, what qiao does, and what mends it for good.

Pure. `docs/reference/remedies.md` is `page()`; other pages take `rows()`.
"""

from __future__ import annotations

import msgspec

from qiao.policies.remedies import HEALABLE_STATUSES, MAX_HEALINGS, TABLE, UNKNOWN_FIELD_WORDINGS


class Row(msgspec.Struct, frozen=True):
    """One refusal. `says`: an engine's exact words; `mend`: empty where nothing has to be done."""

    name: str
    says: str
    cause: str
    done: str
    mend: str = ""


_LENGTHS = (
    Row(
        "answer_too_long",
        "This model's maximum context length is 40960 tokens. However, you requested 32000 output tokens and your "
        "prompt contains 9061 input tokens, for a total of 41061 tokens.",
        "prompt and answer together exceed the context window (vLLM before 0.32, SGLang and others)",
        "max_tokens is lowered to what is left",
    ),
    Row(
        "prompt_too_long",
        "This model's maximum context length is 40960 tokens. However, your prompt contains at least 40961 input "
        "tokens, which exceeds this limit even without any output tokens.",
        "the prompt alone exceeds the context window",
        "no remedy: the client is told `prompt is too long: N tokens > M maximum` with the true N, at which Claude "
        "Code compacts its conversation",
        "tell the client the true window, as `qiao claude` does, so that it compacts in time",
    ),
)

_FIELDS = {
    "OpenAI": "Unrecognized request argument supplied: min_p",
    "pydantic in vLLM": "'loc': 'body.foo', 'msg': 'Extra inputs are not permitted'",
    "Groq": "property 'foo' is unsupported",
    "LiteLLM": "does not support parameters: ['foo']",
    "servers in Rust": "unknown field `foo`",
    "servers in Python": "got an unexpected keyword argument 'foo'",
}


def rows() -> tuple[Row, ...]:
    """Every refusal that is known, in the order in which they are looked for."""
    fields = [
        Row(
            "unknown_field",
            says,
            f"the engine does not take a field ({who})",
            "the field is left out",
            "a newer engine may know it",
        )
        for who, says in _FIELDS.items()
        if any(known == who for known, _ in UNKNOWN_FIELD_WORDINGS)
    ]
    table = [Row(each.name, each.says, each.cause, each.done, each.mend) for each in TABLE]
    return (*_LENGTHS, *table, *fields)


def markdown_rows() -> str:
    """The rows of a Markdown table: name, what the engine says, cause, what qiao does, mend."""
    return "".join(
        f"| `{row.name}` | {_code(row.says)} | {_cell(row.cause)} | {_cell(row.done)} | {_cell(row.mend) or '–'} |\n"
        for row in rows()
    )


def page() -> str:
    """docs/reference/remedies.md."""
    statuses = ", ".join(map(str, sorted(HEALABLE_STATUSES)))
    kept = ", ".join(f"`{each.name}`" for each in TABLE if not each.lasting)
    return f"""# Refusals and their remedies

<!-- Generated from src/qiao/policies/remedies.py; GOLDEN_ACCEPT=1 pytest tests/policies/test_remedies_page.py -->

When an engine refuses a request (status {statuses}) and the refusal is one of these, qiao mends the request
and sends it again at once, at most {MAX_HEALINGS} times a request, not counting what another model of the same
upstream has taught already. What the engine does not take is remembered for the model that the request was for
until the engine's version changes or it was started anew; {kept} and
`answer_too_long` belong to one request and are not.

* The answer's header `x-qiao-healed` names the remedies it needed, `qiao_healed_total` counts them.
* `GET /readyz` lists what the engine has taught (`lessons`), and what follows from it (`quirks`).
* A refusal that cannot be mended reaches the client as one sentence, where there is one in the words that make Claude
  Code mend its conversation itself.

| remedy | what the engine says | why | what qiao does | mend for good |
|---|---|---|---|---|
{markdown_rows()}"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`` {_cell(text)} ``"
