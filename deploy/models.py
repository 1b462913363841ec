"""The base model: a folder of safetensors that vLLM serves and the trainer learns on, named by its weights' digest."""

from pathlib import Path

from deploy.errors import FlywheelError
from trainer.digest import base_digest


class ModelError(FlywheelError):
    """A model folder that cannot be served."""


def check(folder: Path) -> None:
    """Raise `ModelError` unless the folder holds a model with its tokenizer."""
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(
            f"no model in {folder} ({', '.join(missing)} missing): run `flywheel setup`, or set [vllm] model"
        )


def digest(folder: Path) -> str:
    """What identifies the weights: the first 12 hexadecimal digits of their SHA-256, noted in `DIGEST`."""
    check(folder)
    return base_digest(folder)


def write_digest(folder: Path) -> str:
    """Compute the digest afresh and keep it in the folder."""
    (folder / "DIGEST").unlink(missing_ok=True)
    value = digest(folder)
    (folder / "DIGEST").write_text(f"{value}\n")
    return value
