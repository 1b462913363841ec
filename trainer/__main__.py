"""`python -m trainer train|evaluate CONFIG.json`: one job, its progress as JSON lines in the file that is named.

Everything that can be wrong with the configuration is said before torch is imported.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from agents.manifest import ManifestError
from feedback.samples import DatasetError
from tools.embedding import EmbeddingError
from tools.errors import ToolError
from tools.knowledge import KnowledgeError
from trainer.config import ContestConfig, TrainerConfig
from trainer.dataset import EmptyDatasetError
from trainer.tasks import TaskFileError

_BAD_INPUT = (
    *(OSError, UnicodeDecodeError, DatasetError, EmptyDatasetError, TaskFileError),
    *(KnowledgeError, EmbeddingError, ToolError, ManifestError),
)
_PROBLEM = 2  # exit status for a configuration, data set or file that cannot be used


def main() -> int:
    """Exit status 0 when done, 2 with one line on standard error when the input cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("job", choices=("train", "evaluate"))
    parser.add_argument("config", type=Path, help="JSON of trainer.config.TrainerConfig or ContestConfig")
    parser.add_argument("--progress", type=Path, required=True, help="file that progress is appended to")
    parser.add_argument(
        "--result", type=Path, required=True, help="file for the result, written when all is done"
    )
    arguments = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

    def emit(record: dict[str, Any]) -> None:
        with arguments.progress.open("a") as file:
            file.write(json.dumps({"time": time.time(), **record}) + "\n")

    try:
        result = _run(arguments.job, arguments.config.read_text("utf-8"), emit)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        sys.stderr.write(f"trainer: {arguments.config}: {where}: {first['msg']}\n")
        return _PROBLEM
    except _BAD_INPUT as error:
        sys.stderr.write(f"trainer: {' '.join(str(error).split())}\n")
        return _PROBLEM
    arguments.result.write_text(result.model_dump_json())
    return 0


class _Done(BaseModel):
    reports: list[str]


def _run(job: str, text: str, emit: Any) -> BaseModel:
    if job == "train":
        config = TrainerConfig.model_validate_json(text)
        from trainer.train import train

        return train(config, emit)
    contest = ContestConfig.model_validate_json(text)
    from trainer.contest import hold

    return _Done(reports=list(hold(contest, emit)))


if __name__ == "__main__":
    sys.exit(main())
