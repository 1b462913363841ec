"""The settings: defaults that work, the environment over the file, and one line for every mistake."""

from pathlib import Path

import pytest

from deploy.gateway_config import gateway_config
from deploy.settings import Settings, SettingsError, load
from feedback.quota import Quota
from gateway.limits.config import Price


def write(folder: Path, text: str) -> Path:
    path = folder / "flywheel.toml"
    path.write_text(text)
    return path


def message(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_shipped_file_states_the_defaults(root: Path, tmp_path: Path):
    shipped = load(root / "flywheel.toml")
    empty = load(write(tmp_path, ""))
    moved = {name: getattr(shipped, name) for name in Settings.model_fields}
    assert str(moved).replace(str(root), str(tmp_path)) == str(
        {name: getattr(empty, name) for name in Settings.model_fields}
    )


def test_what_the_shipped_file_names_exists(root: Path):
    settings = load(root / "flywheel.toml")
    assert settings.knowledge.file.is_file()
    assert all((folder / "manifest.toml").is_file() for folder in settings.agents.folders)


def test_relative_paths_are_relative_to_the_file_and_not_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load(write(tmp_path, 'var = "data"\n[sql]\ndatabases = ["a.db", "/abs/b.db"]'))
    assert settings.var == tmp_path / "data"
    assert settings.sql.databases == (tmp_path / "a.db", Path("/abs/b.db"))
    assert settings.feedback.store_url == f"sqlite:///{tmp_path}/var/store.db"


def test_the_file_is_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "[gateway]\nport = 1234")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load().gateway.port == 1234


def test_without_a_file_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"no flywheel\.toml .* set FLYWHEEL_CONFIG"):
        load()


def test_the_environment_wins_and_leaves_the_rest_of_its_section_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_GATEWAY__PORT", "9000")
    monkeypatch.setenv("FLYWHEEL_SQL__DATABASES", '["x.db"]')
    settings = load(write(tmp_path, '[gateway]\nhost = "0.0.0.0"\nport = 1'))
    assert (settings.gateway.host, settings.gateway.port) == ("0.0.0.0", 9000)
    assert settings.base_url == "http://127.0.0.1:9000"
    assert settings.sql.databases == (tmp_path / "x.db",)


def test_a_wrong_value_is_named_with_file_and_field(tmp_path: Path):
    said = message(write(tmp_path, "[gateway]\nport = 0"))
    assert said.startswith(f"{tmp_path}/flywheel.toml: [gateway] port: ")
    assert "greater than or equal to 1" in said


def test_an_unknown_setting_is_refused(tmp_path: Path):
    assert "[vllm] modle: no such setting" in message(write(tmp_path, '[vllm]\nmodle = "x"'))


def test_of_two_mistakes_the_first_is_told_and_the_other_counted(tmp_path: Path):
    assert message(write(tmp_path, "[gateway]\nport = 0\nhots = 1")).endswith("(and 1 more)")


def test_a_wrong_variable_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLYWHEEL_GATEWAY__PORT", "many")
    assert "environment: FLYWHEEL_GATEWAY__PORT: " in message(write(tmp_path, ""))


def test_a_variable_of_a_section_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_GATWAY__PORT", "1")
    assert "FLYWHEEL_GATWAY__PORT" in message(write(tmp_path, ""))


def test_a_list_in_the_environment_must_be_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLYWHEEL_SQL__DATABASES", "x.db")
    assert message(write(tmp_path, "")).startswith("environment: ")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path):
    assert "flywheel.toml is not TOML" in message(write(tmp_path, "[gateway"))


def test_a_missing_file_is_named(tmp_path: Path):
    assert f"{tmp_path}/none.toml cannot be read" in message(tmp_path / "none.toml")


def test_limits_come_from_the_file_and_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLYWHEEL_LIMITS__KEY__REQUESTS_PER_MINUTE", "60")
    text = "[limits.key]\ntokens_per_day = 1_000\n[limits.tenants.acme]\nmoney_per_day = 0.5\n"
    prices = "[limits.prices.sql-analyst]\nprompt = 0.1\ncompletion = 1\n"
    limits = load(write(tmp_path, text + prices)).limits
    assert limits.key == Quota(requests_per_minute=60, tokens_per_day=1_000)
    assert limits.of_tenant("acme") == Quota(money_per_day=0.5)
    assert limits.of_tenant("other") == Quota()
    assert limits.prices["sql-analyst"] == Price(prompt=0.1, completion=1.0)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("key = {requests_per_hour = 1}", "key.requests_per_hour: no such setting"),
        ("key = {requests_per_minute = 0}", "key.requests_per_minute: "),
        ('redis_url = "http://here"', "redis_url: "),
        ('redis_url = "redis://here:port"', "redis_url: "),
    ],
)
def test_a_limit_that_is_none_is_one_line(tmp_path: Path, text: str, field: str):
    assert f"[limits] {field}" in message(write(tmp_path, f"[limits]\n{text}"))


def test_external_models_are_off_unless_named_and_reach_the_gateway(settings: Settings, tmp_path: Path):
    entry = '[[external]]\nname = "gpt"\nmodel = "openai/gpt-5"\n'
    assert load(write(tmp_path, "")).external == ()
    (model,) = load(write(tmp_path, entry)).external
    assert (model.name, model.api_base, model.fallbacks) == ("gpt", None, ())
    assert gateway_config(settings.model_copy(update={"external": (model,)})).external == (model,)
    assert "no other one is called x" in message(write(tmp_path, entry + 'fallbacks = ["x"]'))
    assert "no such setting" in message(write(tmp_path, entry + "key = 1"))


def test_the_section_of_kafka_that_the_shipped_file_shows_is_a_valid_one(root: Path, tmp_path: Path):
    lines = (root / "flywheel.toml").read_text().splitlines()
    begin = lines.index("# [kafka]")
    shown = [line.removeprefix("# ") for line in lines[begin : lines.index("", begin)]]
    kafka = load(write(tmp_path, "\n".join(shown).replace('"PLAINTEXT"', '"SASL_SSL"'))).kafka
    assert kafka is not None
    assert kafka.bootstrap_servers == ("127.0.0.1:9092",)
    assert kafka.ca_file == str(tmp_path / "ca.pem")
    assert load(root / "flywheel.toml").kafka is None


def test_kafka_may_be_named_by_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLYWHEEL_KAFKA__BOOTSTRAP_SERVERS", '["kafka:9092"]')
    kafka = load(write(tmp_path, "")).kafka
    assert kafka is not None and kafka.bootstrap_servers == ("kafka:9092",)
    monkeypatch.setenv("FLYWHEEL_KAFKA__BOOTSTRAP_SERVER", '["kafka:9092"]')
    assert "FLYWHEEL_KAFKA__BOOTSTRAP_SERVER" in message(tmp_path / "flywheel.toml").upper()
