"""Records, metrics and logs: complete, bounded, and without a word of what was said."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from qiao.observability.logs import RequestLog, as_json, as_text, level_of
from qiao.observability.metrics import OTHER, Labels, Metrics
from qiao.observability.record import RecentRecords, RequestRecord, client_name, session_hash

RECORD = RequestRecord(
    request_id="req_1",
    route="messages",
    status=200,
    at=1795341600.0,
    duration=4.2,
    model="claude-sonnet-4-5",
    upstream_model="qwen3-235b",
    stop_reason="tool_use",
    is_stream=True,
    input_tokens=12034,
    output_tokens=253,
    cached_tokens=11000,
    first_byte=0.31,
    upstream_seconds=0.05,
    bytes_in=70_000,
    bytes_out=9_000,
    repairs=("trailing_comma", "trailing_comma", "single_quotes"),
    notes=("image: replaced by a note",),
    healed=("stop_limit",),
    dropped=("safeguards",),
    client="claude-cli/2.1.330",
    session="00112233",
)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_request_is_counted() -> None:
    metrics = Metrics()
    metrics.begin()
    assert samples(metrics)["qiao_in_flight", ()] == 1
    metrics.finish(RECORD)
    found = samples(metrics)
    labels = (("model", "qwen3-235b"), ("route", "messages"), ("status", "200"))
    assert found["qiao_requests_total", labels] == 1
    assert found["qiao_repairs_total", (("name", "trailing_comma"),)] == 2
    assert found["qiao_healed_total", (("remedy", "stop_limit"),)] == 1
    assert found["qiao_dropped_fields_total", (("field", "safeguards"),)] == 1
    assert found["qiao_tokens_total", (("direction", "input"),)] == 12034
    assert found["qiao_tokens_total", (("direction", "cached"),)] == 11000
    assert found["qiao_tokens_total", (("direction", "output"),)] == 253
    assert found["qiao_in_flight", ()] == 0
    assert found["qiao_request_duration_seconds_sum", (("route", "messages"),)] == 4.2
    assert found["qiao_time_to_first_byte_seconds_count", (("route", "messages"),)] == 1
    assert found["qiao_upstream_seconds_count", (("route", "messages"),)] == 1


def test_faults_are_counted_by_party() -> None:
    metrics = Metrics()
    metrics.begin()
    metrics.finish(msgspec.structs.replace(RECORD, status=502, fault_kind="api", fault_party="upstream"))
    assert samples(metrics)["qiao_faults_total", (("kind", "api"), ("party", "upstream"))] == 1


def test_upstream_gauge() -> None:
    metrics = Metrics()
    metrics.upstream_up(True)
    assert samples(metrics)["qiao_upstream_up", ()] == 1
    metrics.upstream_up(False)
    assert samples(metrics)["qiao_upstream_up", ()] == 0


def test_two_gateways_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.begin()
    assert samples(other)["qiao_in_flight", ()] == 0


def test_a_client_cannot_make_series_without_end() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.begin()
        record = msgspec.structs.replace(RECORD, dropped=(f"field{number}",), upstream_model=f"model{number}")
        metrics.finish(record)
    found = samples(metrics)
    fields = [labels for name, labels in found if name == "qiao_dropped_fields_total"]
    models = [labels for name, labels in found if name == "qiao_requests_total"]
    assert (len(fields), len(models)) == (101, 51)
    assert found["qiao_dropped_fields_total", (("field", OTHER),)] == 400


def test_labels() -> None:
    label = Labels(2)
    assert [label(value) for value in ("a", "b", "c", "a", "x" * 101, "a\nb")] == ["a", "b", OTHER, "a", OTHER, OTHER]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "info"),
        ({"route": "healthz"}, "debug"),
        ({"route": "healthz", "status": 503}, "warning"),
        ({"status": 400, "fault_party": "client", "fault_kind": "invalid_request"}, "warning"),
        ({"status": 502, "fault_party": "upstream", "fault_kind": "api"}, "error"),
        ({"status": 400, "fault_party": "ours", "fault_kind": "api"}, "error"),
    ],
)
def test_levels(changes: dict[str, object], level: str) -> None:
    assert level_of(msgspec.structs.replace(RECORD, **changes)) == level


def test_the_line_for_people() -> None:
    line = as_text(RECORD)
    assert line[8:] == (
        " messages 200 claude-sonnet-4-5 → qwen3-235b stream tool_use in 12034 (11000 cached) out 253 first 0.31s "
        "4.20s repairs single_quotes×1,trailing_comma×2 healed stop_limit [image: replaced by a note] "
        "claude-cli/2.1.330 req_1"
    )


def test_notes_are_told_and_do_not_fill_the_screen() -> None:
    two = msgspec.structs.replace(RECORD, notes=("shortened: 11 tools to names", "tools: deferred: 3"))
    assert "[shortened: 11 tools to names; tools: deferred: 3]" in as_text(two)
    many = msgspec.structs.replace(RECORD, notes=("shortened: system 6.7 KB to 0.3 KB", *["tools: mcp__x" * 8] * 9))
    assert "[shortened: system 6.7 KB to 0.3 KB; tools: mcp__x" in as_text(many)
    assert "; and 7 more]" in as_text(many)
    assert len(as_text(msgspec.structs.replace(RECORD, notes=("x" * 5000,)))) < 600


def test_the_line_for_machines() -> None:
    plain = RequestRecord(request_id="req_2", route="models", status=200, at=1.0, duration=0.5)
    assert json.loads(as_json(plain)) == {
        "request_id": "req_2", "route": "models", "status": 200, "at": 1.0, "duration": 0.5, "is_stream": False,
        "bytes_in": 0, "bytes_out": 0, "level": "info",
    }  # fmt: skip
    assert json.loads(as_json(RECORD))["repairs"] == ["trailing_comma", "trailing_comma", "single_quotes"]


@pytest.mark.parametrize(
    ("message", "party", "upstream_status", "shown"),
    [
        ("messages.0.role: my secret words", "client", None, "messages.0.role"),
        ("my secret: words", "client", None, ""),
        ("my secret words", "client", None, ""),
        ("prompt is too long: 5 tokens > 4 maximum", "client", 400, "prompt is too long: 5 tokens > 4 maximum"),
        ("prompt is too long: 5 tokens > 4 maximum", "client", None, "prompt is too long: 5 tokens > 4 maximum"),
        ("nothing answers at http://engine:8000", "upstream", None, "nothing answers at http://engine:8000"),
    ],
)
def test_what_a_client_wrote_is_not_logged(message: str, party: str, upstream_status: int | None, shown: str) -> None:
    record = msgspec.structs.replace(
        RECORD,
        status=400,
        fault_kind="invalid_request",
        fault_party=party,
        fault_message=message,
        upstream_status=upstream_status,
    )
    assert record.safe_message == shown
    for line in (as_text(record), as_json(record)):
        assert "secret" not in line
        assert shown in line


@given(model=st.text(max_size=50), message=st.text(max_size=50), note=st.text(max_size=50))
def test_one_record_is_one_line(model: str, message: str, note: str) -> None:
    record = msgspec.structs.replace(
        RECORD, model=model, fault_kind="api", fault_party="upstream", fault_message=message, notes=(note, note)
    )
    for line in (as_text(record), as_json(record)):
        assert len(line.splitlines()) == 1


def test_the_log_keeps_to_its_level() -> None:
    stream = io.StringIO()
    log = RequestLog(stream, level="warning")
    log.write(RECORD)
    log.write(msgspec.structs.replace(RECORD, status=404))
    assert stream.getvalue().count("\n") == 1
    everything = io.StringIO()
    RequestLog(everything, level="debug", as_json=True).write(msgspec.structs.replace(RECORD, route="healthz"))
    assert json.loads(everything.getvalue())["route"] == "healthz"


class Pipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_went_away_ends_the_log_only() -> None:
    log = RequestLog(Pipe())
    log.write(RECORD)
    log.write(RECORD)
    closed = io.StringIO()
    closed.close()
    RequestLog(closed).write(RECORD)


def test_recent_records() -> None:
    recent = RecentRecords(capacity=3)
    for number in range(5):
        recent.add(msgspec.structs.replace(RECORD, request_id=f"req_{number}"))
    assert [record.request_id for record in recent] == ["req_2", "req_3", "req_4"]
    assert len(recent) == 3


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("claude-cli/2.1.330 (external, cli)", "claude-cli/2.1.330"),
        ("AsyncAnthropic/Python 2.12.0", "AsyncAnthropic/Python"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", ""),
        (None, ""),
        ("\x1b[31mred", ""),
        ("x" * 500, "x" * 40),
    ],
)
def test_client_names(user_agent: str | None, name: str) -> None:
    assert client_name(user_agent) == name


def test_session_hashes() -> None:
    assert session_hash(None) == ""
    assert session_hash("user_1_session_2") == session_hash("user_1_session_2") != session_hash("user_1_session_3")
    assert len(session_hash("\ud800")) == 8
