"""Numbers for Prometheus, in a registry of their own: two gateways in one process do not mix.

Labels are bounded: a client cannot make new time series by inventing names.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from qiao.observability.record import RequestRecord

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

# From a cached short answer to twenty minutes of prefill: that is how long a request may take here.
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)

OTHER = "other"
"""The label of everything beyond the bound."""


class Labels:
    """At most `limit` different values of a label; every further one is `OTHER`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit or len(value) > 100 or not value.isprintable():
            return OTHER
        self._known.add(value)
        return value


class Metrics:
    """The counters of one gateway. `begin()` and `finish(record)` bracket every request."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        self._requests = Counter("qiao_requests", "Requests answered.", ("route", "status", "model"), registry=registry)
        self._faults = Counter("qiao_faults", "Rules broken, by whom and which.", ("party", "kind"), registry=registry)
        self._repairs = Counter("qiao_repairs", "Mends on tool arguments.", ("name",), registry=registry)
        self._dropped = Counter(
            "qiao_dropped_fields", "Request fields that were ignored.", ("field",), registry=registry
        )
        self._healed = Counter(
            "qiao_healed", "Upstream refusals that were mended, by remedy.", ("remedy",), registry=registry
        )
        self._lessons = Gauge(
            "qiao_lessons",
            "What the upstream does not take and is asked without, by remedy.",
            ("remedy",),
            registry=registry,
        )
        self._joined = Counter("qiao_joined", "Requests that shared the answer of the same one.", registry=registry)
        self._trimmed = Counter(
            "qiao_trimmed", "Pieces of conversations that were shortened to fit the window.", registry=registry
        )
        self._tokens = Counter(
            "qiao_tokens",
            "Tokens: input (cached ones included), cached, output.",
            ("direction",),
            registry=registry,
        )
        self._duration = _seconds("qiao_request_duration_seconds", "Time until the last byte of an answer.", registry)
        self._first_byte = _seconds(
            "qiao_time_to_first_byte_seconds", "Time until the first byte of an answer.", registry
        )
        self._upstream = _seconds(
            "qiao_upstream_seconds", "Time until the upstream accepted a request, healings included.", registry
        )
        self._in_flight = 0
        in_flight = Gauge("qiao_in_flight", "Requests being answered now.", registry=registry)
        in_flight.set_function(lambda: self._in_flight)
        self._upstream_up = Gauge(
            "qiao_upstream_up", "Whether the upstream answered when last asked.", registry=registry
        )
        self._models, self._fields = Labels(50), Labels(100)

    def begin(self) -> None:
        """A request came in."""
        self._in_flight += 1

    def finish(self, record: RequestRecord) -> None:
        """A request is over. Called once for every `begin`."""
        self._in_flight -= 1
        model = self._models(record.upstream_model) if record.upstream_model else ""
        self._requests.labels(record.route, str(record.status), model).inc()
        self._duration.labels(record.route).observe(record.duration)
        if record.first_byte is not None:
            self._first_byte.labels(record.route).observe(record.first_byte)
        if record.upstream_seconds is not None:
            self._upstream.labels(record.route).observe(record.upstream_seconds)
        if record.fault_kind is not None:
            self._faults.labels(record.fault_party or "ours", record.fault_kind).inc()
        for counter, names in ((self._repairs, record.repairs), (self._healed, record.healed)):
            for name in names:
                counter.labels(name).inc()
        if record.joined:
            self._joined.inc()
        if record.trimmed:
            self._trimmed.inc(record.trimmed)
        for field in record.dropped:
            self._dropped.labels(self._fields(field)).inc()
        self.spend(record.input_tokens, record.cached_tokens, record.output_tokens)

    def spend(self, prompt: int | None, cached: int | None, completion: int | None) -> None:
        """Tokens of an answer, also of one whose clients had all left before its end, so that no record has them."""
        for direction, tokens in (("input", prompt), ("cached", cached), ("output", completion)):
            if tokens:
                self._tokens.labels(direction).inc(tokens)

    def upstream_up(self, is_up: bool) -> None:
        """What the last probe or request found."""
        self._upstream_up.set(1 if is_up else 0)

    def lessons(self, names: Iterable[str]) -> None:
        """What is in force now, see `upstream.base.Lesson`."""
        self._lessons.clear()
        for name in names:
            self._lessons.labels(name).inc()

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


def _seconds(name: str, documentation: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, documentation, ("route",), buckets=_SECONDS, registry=registry)
