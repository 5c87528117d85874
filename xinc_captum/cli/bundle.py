"""Results from earlier, read again: what a folder holds, and whether its files are still what was written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .. import store
from .failures import UsageError


class Bundle(NamedTuple):
    """A folder of results, and what its manifest says."""

    folder: Path
    note: Mapping[str, Any]

    def has(self, file: str) -> bool:
        """Whether the manifest lists it."""
        return file in self.note["outputs"]

    def file(self, name: str) -> Path:
        """A file of the bundle, with the bytes that were written.

        Raises:
            UsageError: it is missing, or was changed.
        """
        path = self.folder / name
        if not self.has(name) or not path.is_file():
            raise UsageError(f"{self.folder} is damaged: {name} is missing. Make the result again.")
        if store.sha256(path) != self.note["outputs"][name]:
            raise UsageError(f"{self.folder} is damaged: {name} is not what was written. Make the result again.")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a file of tensors holds.

        Raises:
            UsageError: as :meth:`file`, or it is no such file.
        """
        try:
            return load_file(self.file(name))
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error

    def json(self, name: str) -> Any:
        """What a JSON file holds.

        Raises:
            UsageError: as :meth:`file`, or it is no JSON.
        """
        try:
            return json.loads(self.file(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error


def bundle_at(folder: Path) -> Bundle:
    """The bundle in a folder.

    Raises:
        FileNotFoundError: no such folder.
        UsageError: it holds no result of ours.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; wanted one that an xinc command or Comparison.save wrote.")
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        known = note["format"] == store.FORMAT and isinstance(note["outputs"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f"{folder} holds no {store.MANIFEST} of ours; wanted a folder that an xinc command or Comparison.save "
            "wrote."
        )
    return Bundle(folder, note)
