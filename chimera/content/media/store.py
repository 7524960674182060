"""Pictures in a folder, each under the digest of its bytes: written once, whole or not at all."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from chimera.content.create.item import Media
from chimera.content.media.picture import Picture
from chimera.core.errors import InputError, NotThere, StorageError
from chimera.storage.whole_file import write_whole

ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg"}

_REF: Final = re.compile(r"[0-9a-f]{64}\.(?:png|jpg)")


class MediaFolder:
    """The media of items. Raises StorageError where the disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, picture: Picture) -> Media:
        """Keep the picture, and say what it is. A second time: nothing happens."""
        if picture.media_type not in ENDINGS:
            raise InputError(f"media are {' and '.join(ENDINGS)}, not {picture.media_type!r}")
        ref = f"{picture.digest}.{ENDINGS[picture.media_type]}"
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self._path / ref).exists():
                write_whole(self._path / ref, picture.data)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error
        return Media.model_validate(
            {
                "sha256": picture.digest,
                "media_type": picture.media_type,
                "alt": picture.alt,
                "ref": ref,
                "width": picture.width,
                "height": picture.height,
                "size_bytes": len(picture.data),
            }
        )

    def path(self, media: Media) -> Path:
        """Where its file lies."""
        return self._path / media.ref

    def get(self, ref: str) -> bytes:
        """The bytes. Raises NotThere, and StorageError for a file that is not what its name says."""
        if not _REF.fullmatch(ref):
            raise NotThere(f"{ref!a:.100} is no picture's name")
        try:
            data = (self._path / ref).read_bytes()
        except FileNotFoundError:
            raise NotThere(f"there is no picture {ref} in {self._path}") from None
        except OSError as error:
            raise StorageError(f"{self._path / ref}: {error.strerror or error}") from error
        if sha256(data).hexdigest() != ref[:64]:
            raise StorageError(f"{self._path / ref} was changed since it was written: make the item anew")
        return data
