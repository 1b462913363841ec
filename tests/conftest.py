"""What every test may use. Nothing heavy is imported here: most tests need neither torch nor vLLM."""

import os
from pathlib import Path

import pytest

from domains.insurance.database import build

pytest_plugins = ["tests.servers"]

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def insurance(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Production and shadow: the insurer's two databases, as set-up builds them. Only ever read."""
    folder = tmp_path_factory.mktemp("insurance")
    paths = folder / "insurance.db", folder / "insurance_shadow.db"
    for path, seed in zip(paths, (7, 11), strict=True):
        build(path, seed)
    return paths


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own FLYWHEEL_… and OTEL_… variables must not decide a test."""
    for name in os.environ:
        if name.startswith(("FLYWHEEL_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; under CI only a missing GPU is a reason."""
    model = ROOT / "var" / "models" / "smollm2-135m" / "DIGEST"
    no_model = not model.is_file() and not os.environ.get("CI")
    no_gpu = not Path("/dev/nvidia0").exists()
    for item in items:
        if no_model and item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.skip(reason="the small model is not there: run `make setup`"))
        if no_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="this machine has no CUDA GPU"))
