"""Every source of the configuration, alone and against each other; what cannot be used, in golden cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiao.config import Auth, Config, Origin, Server, options, resolve
from qiao.errors import ConfigurationError
from qiao.options import Secret, engine_url, gateway_url, parse_seconds, parse_size

CASES = sorted((Path(__file__).parent / "golden" / "config").glob("*.case"))
HOME = {"HOME": "/home/somebody"}


def settled(
    folder: Path, toml: str = "", flags: dict[str, str | bool | None] | None = None, **variables: str
) -> Config:
    if toml:
        (folder / "qiao.toml").write_text(toml, "utf-8")
    return resolve(flags or {}, variables={**HOME, **variables}, folder=folder)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_cannot_be_used_is_said_with_its_place_and_mend(path: Path, tmp_path: Path) -> None:
    given_text, _, expected = path.read_text("utf-8").partition("----------\n")
    with pytest.raises(ConfigurationError) as raised:
        settled(tmp_path, given_text)
    error = raised.value
    said = f"error: {error.message}\nhint: {error.hint}\n".replace(f"{tmp_path}/", "")
    assert said == expected
    assert error.exit_status == 2


def test_defaults(tmp_path: Path) -> None:
    config = settled(tmp_path)
    assert config.server == Server(host="127.0.0.1", port=4000)
    assert config.server.max_body == 32 * 2**20
    assert config.folders.state == Path("/home/somebody/.local/state/qiao")
    assert config.folders.cache == Path("/home/somebody/.cache/qiao")
    assert config.origins == {}
    assert str(config.origin("server.port")) == "default"


def test_each_source_wins_over_the_one_below(tmp_path: Path) -> None:
    toml = "[server]\nport = 1\nhost = '10.0.0.1'\nmax_body = '1MiB'\n"
    config = settled(tmp_path, toml, {"server.port": "3"}, QIAO_PORT="2", QIAO_HOST="10.0.0.2")
    assert (config.server.port, config.origin("server.port")) == (3, Origin("flag", "--port"))
    assert (config.server.host, config.origin("server.host")) == ("10.0.0.2", Origin("environment", "QIAO_HOST"))
    assert (config.server.max_body, config.origin("server.max_body")) == (2**20, Origin("file", "qiao.toml"))


def test_a_whole_file(tmp_path: Path) -> None:
    config = settled(
        tmp_path,
        """
        [server]
        port = 4100
        ping_interval = "5s"
        [auth]
        no_auth = true
        [upstream]
        url = "gpu-box:8000"
        api_key = "upstream-secret"
        flavor = "vllm"
        [models]
        main = "Qwen/Qwen3-235B-A22B-Instruct-2507"
        name = "qwen3-235b"
        small = "Qwen/Qwen3-4B"
        [models.map]
        "claude-opus-4-5" = "Qwen/Qwen3-235B-A22B-Instruct-2507"
        [engine]
        gguf = "models/a.gguf"
        context = 4096
        auto_tools = 3
        [log]
        level = "debug"
        json = true
        """,
    )
    assert config.upstream.url == "http://gpu-box:8000/v1"
    assert config.upstream.root == "http://gpu-box:8000"
    assert config.upstream.api_key == Secret("upstream-secret")
    assert config.server.ping_interval == 5.0
    assert config.models.map == {"claude-opus-4-5": "Qwen/Qwen3-235B-A22B-Instruct-2507"}
    assert config.engine.gguf == tmp_path / "models/a.gguf", "a path in a file starts at the file"
    assert config.engine.auto_tools == 3.0
    assert config.log.json is True
    assert {str(origin) for origin in config.origins.values()} == {"qiao.toml"}


def test_the_file_in_the_folder_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "qiao.toml").write_text("[client]\nurl = 'http://evil.example'\n", "utf-8")
    config = resolve({}, variables=HOME, folder=tmp_path, file_in_folder=False)
    assert config.client.url is None
    named = resolve({}, variables=HOME, folder=tmp_path, file="qiao.toml", file_in_folder=False)
    assert named.client.url == "http://evil.example"


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--config names other\.toml, and there is no such file"):
        resolve({}, variables=HOME, folder=tmp_path, file="other.toml")
    with pytest.raises(ConfigurationError, match=r"QIAO_CONFIG names other\.toml"):
        resolve({}, variables={**HOME, "QIAO_CONFIG": "other.toml"}, folder=tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("QIAO_PORT", "four", "QIAO_PORT takes a whole number, 0 to 65535, not 'four'."),
        ("QIAO_PORT", "-1", "QIAO_PORT takes a whole number, 0 to 65535, not '-1'."),
        ("QIAO_NO_AUTH", "maybe", "QIAO_NO_AUTH takes true or false, not 'maybe'."),
        (
            "QIAO_PING_INTERVAL",
            "nan",
            "QIAO_PING_INTERVAL takes a time such as 10s or a number of seconds, 0.05 or more",
        ),
        ("QIAO_LOG_LEVEL", "loud", "QIAO_LOG_LEVEL takes one of debug, info, warning, error, not 'loud'."),
        ("QIAO_UPSTREAM", "ftp://gpu", "QIAO_UPSTREAM takes an address such as"),
        ("QIAO_UPSTREAM", "http://gpu:port", "QIAO_UPSTREAM takes an address such as"),
    ],
)
def test_variables_that_cannot_be_used(tmp_path: Path, variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settled(tmp_path, **{variable: text})
    assert raised.value.message.startswith(message)


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    assert settled(tmp_path, QIAO_PORT="", QIAO_UPSTREAM=" ").origins == {}


def test_an_unknown_variable_is_warned_of(tmp_path: Path) -> None:
    config = settled(tmp_path, QIAO_PROT="1")
    assert config.warnings == ("QIAO_PROT is not a variable of qiao and has no effect. Did you mean QIAO_PORT?",)


def test_variables_of_others_come_after_our_own(tmp_path: Path) -> None:
    assert settled(tmp_path, HF_ENDPOINT="https://mirror.example").engine.hub == "https://mirror.example"
    both = settled(tmp_path, HF_ENDPOINT="https://mirror.example", QIAO_ENGINE_HUB="https://own.example")
    assert both.engine.hub == "https://own.example"


def test_a_key_and_no_auth_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--no-auth asks for no key, and --api-key sets one"):
        settled(tmp_path, flags={"auth.no_auth": True, "auth.api_key": "k"})
    flag_wins = settled(tmp_path, flags={"auth.no_auth": True}, QIAO_API_KEY="k")
    assert flag_wins.auth == Auth(api_key=None, no_auth=True)
    assert flag_wins.warnings == ("--no-auth overrides QIAO_API_KEY.",)
    key_wins = settled(tmp_path, "[auth]\nno_auth = true\n", QIAO_API_KEY="k")
    assert key_wins.auth == Auth(api_key=Secret("k"), no_auth=False)


def test_secrets_show_themselves_nowhere(tmp_path: Path) -> None:
    config = settled(
        tmp_path, "[upstream]\napi_key = 'open-sesame'\n", QIAO_API_KEY="open-sesame", HF_TOKEN="open-sesame"
    )
    assert config.auth.api_key is not None
    assert config.auth.api_key.reveal() == "open-sesame"
    assert "open-sesame" not in repr(config) + str(config) + config.describe() + f"{config.auth.api_key}"
    with pytest.raises(TypeError):
        msgspec.json.encode(config)
    with pytest.raises(ConfigurationError) as raised:
        settled(tmp_path, QIAO_UPSTREAM="http://me:open-sesame@gpu/v1")
    assert "open-sesame" not in raised.value.message


def test_describe_names_every_value_and_its_origin(tmp_path: Path) -> None:
    lines = settled(tmp_path, "[models.map]\nsmall = 'x'\n", QIAO_PORT="0").describe().splitlines()
    assert [line.split()[0] for line in lines] == [option.key for option in options()]
    by_key = {line.split()[0]: line.split()[1:] for line in lines}
    assert by_key["server.port"] == ["0", "QIAO_PORT"]
    assert by_key["auth.no_auth"] == ["no", "default"]
    assert by_key["models.map"] == ["small", "→", "x", "qiao.toml"]


def test_every_option_can_be_told_apart() -> None:
    variables = [option.variable for option in options() if option.variable]
    flags = [option.about.flag for option in options() if option.about.flag]
    assert len(set(variables)) == len(variables)
    assert len(set(flags)) == len(flags)
    for option in options():
        assert option.about.help[0].islower() or option.about.help.startswith("OpenAI"), option.key
        assert not option.about.help.endswith("."), option.key


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("my-laptop", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert Server(host=host).is_loopback is expected


@pytest.mark.parametrize(
    ("text", "engine", "gateway"),
    [
        ("http://gpu:8000", "http://gpu:8000/v1", "http://gpu:8000"),
        ("http://gpu:8000/", "http://gpu:8000/v1", "http://gpu:8000"),
        ("http://gpu:8000/v1", "http://gpu:8000/v1", "http://gpu:8000"),
        ("http://gpu:8000/v1/", "http://gpu:8000/v1", "http://gpu:8000"),
        ("gpu:8000", "http://gpu:8000/v1", "http://gpu:8000"),
        ("https://host/serve/v1", "https://host/serve/v1", "https://host/serve"),
        ("https://host/api/paas/v4", "https://host/api/paas/v4", "https://host/api/paas/v4"),
        ("http://gpu:8000/v1/chat/completions", "http://gpu:8000/v1", "http://gpu:8000/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses(text: str, engine: str, gateway: str) -> None:
    assert engine_url(text) == engine
    assert gateway_url(text) == gateway


@pytest.mark.parametrize(
    "text", ["", "http://", "http://a b", "http://h:99999", "http://h?x=1", "http://h#f", "file:///x", "http://u@h"]
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(engine_url, text)
    assert not is_address(gateway_url, text)


def is_address(parse: Callable[[str], str], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


@given(st.text(max_size=40) | st.text(alphabet="htp:/?#@[]v1.0 ", max_size=20))
@example("0/#")
@example("http://h?")
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        url = engine_url(text)
    except ValueError:
        return
    assert engine_url(url) == url, "normalising again changes nothing"


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("33554432", 2**25), ("32MiB", 2**25), ("32M", 2**25), ("1kb", 1000), ("2 GiB", 2**31)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10.0), ("0.5", 0.5), ("10s", 10.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


def test_folders_follow_xdg(tmp_path: Path) -> None:
    config = settled(tmp_path, XDG_STATE_HOME="/state", XDG_CACHE_HOME="relative")
    assert config.folders.state == Path("/state/qiao")
    assert config.folders.cache == Path("/home/somebody/.cache/qiao"), "a relative XDG path is to be ignored"
    assert settled(tmp_path, QIAO_STATE="/elsewhere").folders.state == Path("/elsewhere")


def test_replace_remembers_the_origin() -> None:
    config = Config().replace("auth.api_key", Secret("k"), Origin("state", "/state/key"))
    assert config.value("auth.api_key") == Secret("k")
    assert str(config.origin("auth.api_key")) == "/state/key"
    assert config.origin("server.port") == Origin("default")
