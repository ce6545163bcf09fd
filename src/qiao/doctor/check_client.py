"""Checks of Claude Code on this machine: the program, and variables that send it elsewhere or fight each other."""

from __future__ import annotations

from qiao.clients.claude_code import REROUTING
from qiao.clients.claude_program import INSTALL_HINT, version_notice
from qiao.clients.connection import is_loopback
from qiao.doctor.facts import ClientFacts, Setting
from qiao.doctor.finding import Check, Finding, Grade
from qiao.doctor.look_server import root_of

ABOUT = "Claude Code"
ENVIRONMENT = "the environment"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def _finding(check: str, grade: Grade, evidence: str, mend: str | None = None) -> Finding:
    return Finding(check=check, grade=grade, about=ABOUT, evidence=evidence, mend=mend)


def claude_missing(facts: ClientFacts) -> Finding | None:
    """Claude Code is not installed."""
    if facts.program is None:
        return _finding("claude_missing", "warning", facts.missing or "Claude Code is not installed.", INSTALL_HINT)
    return _finding("claude_missing", "ok", f"Claude Code {facts.version or '?'}: {facts.program}")


def claude_too_old(facts: ClientFacts) -> Finding | None:
    """Claude Code is older than what qiao was tested with."""
    notice = version_notice(facts.version)
    if notice is None:
        return None
    says, _, mend = notice.partition(". ")
    return _finding("claude_too_old", "warning", f"{says}.", mend)


def base_url(facts: ClientFacts) -> Finding | None:
    """ANTHROPIC_BASE_URL with a /v1 at its end."""
    setting = _effective(facts).get("ANTHROPIC_BASE_URL")
    if setting is None:
        return None
    if root_of(setting.value) != setting.value.rstrip("/"):
        return _finding(
            "base_url",
            "problem",
            f"ANTHROPIC_BASE_URL is {setting.value} ({setting.place}); Claude Code adds /v1 itself, so it asks "
            f"{setting.value.rstrip('/')}/v1/messages.",
            f"ANTHROPIC_BASE_URL={root_of(setting.value)}",
        )
    return _finding("base_url", "ok", f"ANTHROPIC_BASE_URL is {setting.value} ({setting.place}).")


def variables_overruled(facts: ClientFacts) -> Finding | None:
    """A settings file says otherwise than the environment, and wins."""
    said: dict[str, Setting] = {}
    for setting in facts.settings:
        earlier = said.get(setting.name)
        if earlier is not None and earlier.value != setting.value and setting.name.startswith(("ANTHROPIC", "CLAUDE")):
            return _finding(
                "variables_overruled",
                "problem",
                f"{setting.name} is set twice, and not alike: in {earlier.place}{_shown(earlier)} and in "
                f"{setting.place}{_shown(setting)}. The latter wins: the env of a settings file stands above the "
                "environment.",
                f'Remove {setting.name} from "env" in {setting.place}, or use `qiao claude`, which overrules it.',
            )
        said[setting.name] = setting
    return None


def rivals(facts: ClientFacts) -> Finding | None:
    """Variables that would send a session, or its key, elsewhere than ANTHROPIC_BASE_URL says."""
    effective = _effective(facts)
    if "ANTHROPIC_BASE_URL" not in effective:
        return None
    for name in REROUTING:
        if effective.get(name) is not None and effective[name].value not in ("", "0", "false"):
            return _finding(
                "rivals",
                "problem",
                f"{name} ({effective[name].place}) wins over ANTHROPIC_BASE_URL: the session goes elsewhere.",
                f"unset {name} (`qiao claude` leaves it out).",
            )
    return None


def two_keys(facts: ClientFacts) -> Finding | None:
    """Two keys at once: both are sent, and the one that is looked at may be the wrong one."""
    effective = _effective(facts)
    key, token = effective.get("ANTHROPIC_API_KEY"), effective.get("ANTHROPIC_AUTH_TOKEN")
    if key is None or token is None or not key.value or key.value == token.value:
        return None
    return _finding(
        "two_keys",
        "problem",
        f"ANTHROPIC_API_KEY ({key.place}) and ANTHROPIC_AUTH_TOKEN ({token.place}) are both set, and not alike: both "
        "are sent, one as x-api-key, one as Bearer.",
        "unset ANTHROPIC_API_KEY; the gateway's key goes into ANTHROPIC_AUTH_TOKEN.",
    )


def proxy(facts: ClientFacts) -> Finding | None:
    """A proxy through which Claude Code would reach a gateway on this machine."""
    effective = _effective(facts)
    setting = effective.get("ANTHROPIC_BASE_URL")
    used = next((effective[name] for name in _PROXIES if name in effective and effective[name].value), None)
    if used is None or setting is None:
        return None
    host = root_of(setting.value).partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    exempt = ",".join(effective[name].value for name in ("NO_PROXY", "no_proxy") if name in effective).split(",")
    if not is_loopback(host) or host in (each.strip() for each in exempt) or "*" in exempt:
        return None
    return _finding(
        "proxy",
        "warning",
        f"{used.name} is set ({used.place}), and NO_PROXY does not name {host}: Claude Code sends even loopback "
        "through the proxy.",
        f"NO_PROXY={host} (`qiao claude` sets it).",
    )


def window_without_effect(facts: ClientFacts) -> Finding | None:
    """The true window is told, and the model's name makes Claude Code ignore it."""
    effective = _effective(facts)
    told, model = effective.get("CLAUDE_CODE_MAX_CONTEXT_TOKENS"), effective.get("ANTHROPIC_MODEL")
    if told is None or model is None or not model.value.startswith("claude-"):
        return None
    return _finding(
        "window_without_effect",
        "warning",
        f"CLAUDE_CODE_MAX_CONTEXT_TOKENS is {told.value}, but ANTHROPIC_MODEL is {model.value}: for names that Claude "
        "Code knows it has no effect.",
        "Use the model's own name (qwen3-235b), or CLAUDE_CODE_AUTO_COMPACT_WINDOW.",
    )


def settings_broken(facts: ClientFacts) -> Finding | None:
    """A settings file that is no JSON."""
    if not facts.broken_files:
        return None
    evidence = f"{facts.broken_files[0]} is no valid JSON: Claude Code does not read it."
    return _finding("settings_broken", "warning", evidence, "Mend the file.")


def _effective(facts: ClientFacts) -> dict[str, Setting]:
    return {setting.name: setting for setting in facts.settings}


def _shown(setting: Setting) -> str:
    is_secret = any(word in setting.name for word in ("KEY", "TOKEN", "HEADERS"))
    return "" if is_secret else f" ({setting.value})"


CHECKS: tuple[Check[ClientFacts], ...] = (
    Check("claude_missing", "Claude Code that is not installed", claude_missing),
    Check("claude_too_old", "Claude Code that is too old", claude_too_old),
    Check("settings_broken", "a settings file of Claude Code that is no JSON", settings_broken),
    Check("base_url", "ANTHROPIC_BASE_URL with a /v1 too much", base_url),
    Check("variables_overruled", "a settings file that overrules the environment", variables_overruled),
    Check("rivals", "variables that send the session to another provider", rivals),
    Check("two_keys", "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN at once", two_keys),
    Check("proxy", "a proxy between Claude Code and a gateway on this machine", proxy),
    Check(
        "window_without_effect", "a window that Claude Code ignores because of the model's name", window_without_effect
    ),
)
