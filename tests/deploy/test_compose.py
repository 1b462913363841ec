"""deploy/compose.yaml and its image: what can be known of them without Docker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from deploy import broker, cli
from deploy.settings import Settings, load

OURS = ("topics", "gateway", "collector")
EXAMPLES = {
    "VLLM_URL": "http://host.docker.internal:8000",
    "POSTGRES_PASSWORD": "s3cret",
    "MODEL": "/models/base",
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    text = (Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text()
    compose = yaml.safe_load(re.sub(r"\$\{(\w+):[?-]([^}]*)\}", lambda m: EXAMPLES.get(m[1], m[2]), text))
    named = {name.split(":")[0] for each in compose["services"].values() for name in each.get("volumes", ())}
    assert {name for name in named if not name.startswith("/")} == set(compose["volumes"])
    found = compose["services"]
    assert isinstance(found, dict)
    return found


def settings_of(service: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (folder / "flywheel.toml").write_text("")
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    return load(folder / "flywheel.toml")


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_told_by_settings_that_there_are(
    services: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = settings_of(services[name], tmp_path, monkeypatch)
    assert settings.kafka is not None
    assert settings.kafka.bootstrap_servers == ("kafka:9092",)
    assert settings.vllm.base_url == EXAMPLES["VLLM_URL"]
    assert (settings.vllm.manage, settings.feedback.collectors) == (False, 0)
    assert "s3cret" not in settings.feedback.store_url


def test_their_commands_are_commands_of_ours(services: dict[str, Any]):
    for name in OURS:
        command: Any = get_command(cli.app)
        for word in services[name]["command"]:
            command = command.commands[word]


def test_the_database_is_made_as_our_url_names_it(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    database = services["postgres"]["environment"]
    url = settings_of(services["gateway"], tmp_path, monkeypatch).feedback.store_url
    assert url == f"postgresql://{database['POSTGRES_USER']}@postgres/{database['POSTGRES_DB']}"
    assert services["gateway"]["environment"]["PGPASSWORD"] == database["POSTGRES_PASSWORD"]


def test_the_broker_is_the_one_that_we_start_ourselves_but_for_its_addresses(services: dict[str, Any]):
    told = services["kafka"]["environment"]
    ours = {
        f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in broker.properties(9092).items()
    }
    same = {
        name for name in told.keys() & ours.keys() if told[name].replace("kafka:", "127.0.0.1:") == ours[name]
    }
    assert told.keys() - same == {"KAFKA_LISTENERS", "KAFKA_LOG_DIRS"}
    assert told["KAFKA_LISTENERS"] == ours["KAFKA_LISTENERS"].replace("127.0.0.1", "")
    assert services["kafka"]["image"] == broker.IMAGE
    assert told["KAFKA_LOG_DIRS"] in services["kafka"]["volumes"][0]


def test_the_image_is_made_by_a_target_that_there_is(root: Path):
    target = re.search(r"RUN make (\S+)", (root / "deploy" / "Dockerfile").read_text())
    assert target is not None
    assert re.search(rf"^{re.escape(target[1])}:", (root / "Makefile").read_text(), re.MULTILINE)
