"""Drives whichever `anthropic` package the running interpreter has: JSON lines in, JSON lines out.

Runs under the newest SDK and under an old one, so it imports nothing of the test suite and uses only what both have.
A line is `{"op", "client", "params"}`; the answer `{"value"}` or `{"error"}`.
"""

import json
import sys
from typing import Any

import anthropic


def plain(value: Any) -> Any:
    """A model of the SDK as JSON, with only what came over the wire."""
    return json.loads(value.to_json())


def create(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    return {"message": plain(client.messages.create(**params))}


def stream(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    """Read a stream to its end with the accumulating helper."""
    events: list[str] = []
    text = ""
    with client.messages.stream(**params) as opened:
        for event in opened:
            events.append(event.type)
            if event.type == "text":
                text += event.text
        final = opened.get_final_message()
        request_id = opened.response.headers.get("request-id")
    return {"message": plain(final), "events": events, "text": text, "request_id": request_id}


def leave(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    """Open a stream, read `after` events, and go."""
    after = params.pop("after")
    seen = 0
    with client.messages.stream(**params) as opened:
        for _ in opened:
            seen += 1
            if seen >= after:
                break
    return {"events": seen}


def count(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    return plain(client.messages.count_tokens(**params))


def models(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    return [plain(model) for model in client.models.list(**params)]


def model(client: anthropic.Anthropic, params: dict[str, Any]) -> Any:
    return plain(client.models.retrieve(params["id"]))


def failure(error: anthropic.AnthropicError) -> dict[str, Any]:
    body = getattr(error, "body", None)
    inner = body.get("error", {}) if isinstance(body, dict) else {}
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "type": inner.get("type"),
        "message": inner.get("message", str(error)),
        "request_id": getattr(error, "request_id", None),
    }


OPERATIONS = {
    "create": create,
    "stream": stream,
    "leave": leave,
    "count": count,
    "models": models,
    "model": model,
}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any]
        with anthropic.Anthropic(**order["client"]) as client:
            try:
                answer = {"value": OPERATIONS[order["op"]](client, order["params"])}
            except anthropic.AnthropicError as error:
                answer = {"error": failure(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
