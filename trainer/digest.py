"""What identifies a base model: one definition, for whoever serves it and whoever trains on it."""

import hashlib
from pathlib import Path


def base_digest(base: Path) -> str:
    """First 12 hexadecimal digits of the weights' SHA-256: from `DIGEST` beside them where it is, else computed."""
    known = base / "DIGEST"
    if known.is_file():
        return known.read_text().strip()
    digest = hashlib.sha256()
    for file in sorted(base.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
