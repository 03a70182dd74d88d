"""Files that hold the secrets of blocks, one a block, in a folder that is the user's alone.

``block_documents`` writes and reads them under ``PREFECTLITE_HOME/secrets``, and says which of them are
still needed. A file is written once, whole, and never changed. Nothing here knows the registry, and
no message here says what is in a file.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from prefectlite.errors import OutputError
from prefectlite.filesystems import sync_folder, sync_folders
from prefectlite.locks import WriteGate
from prefectlite.settings import PREFECTLITE_HOME, PREFECTLITE_REGISTRY_LOCK_SECONDS

# Its name is no id, so it is no file of secrets.
_LOCK = "lock"
_OTHERS = 0o077


def secrets_folder() -> Path:
    """Return where the files are; it may not exist yet."""
    return PREFECTLITE_HOME.value() / "secrets"


@contextmanager
def writing() -> Iterator[None]:
    """Be the only one, in all processes, who writes or removes files in the folder; it is made here.

    Raises:
        OutputError: There can be no such folder.
        RegistryLockTimeoutError: Another process was at it for too long.
    """
    folder = secrets_folder()
    try:
        _make(folder)
        gate = WriteGate(folder / _LOCK, timeout_seconds=PREFECTLITE_REGISTRY_LOCK_SECONDS.value())
    except OSError as error:
        raise _unwritable(folder, error) from error
    with closing(gate):
        gate.enter()
        yield


def write_secrets(name: str, secrets: Sequence[object]) -> None:
    """Write a new file, for its owner alone; on return it outlives a power cut.

    Args:
        name: A new name: an id.
        secrets: JSON-able values, or bytes.

    Raises:
        OutputError: It cannot be written.
    """
    path = secrets_folder() / name
    content = json.dumps([_entry(secret) for secret in secrets]).encode("ascii")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def read_secrets(name: str) -> list[object]:
    """Return what was written.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It is not as it was written.
    """
    document = json.loads((secrets_folder() / name).read_bytes())
    if not isinstance(document, list):
        raise ValueError("it holds no list")  # noqa: TRY004 - as what json.loads raises
    return [_secret(entry) for entry in document]


def remove_secrets(name: str) -> None:
    """Remove a file, if it is there; it does not come back with a power cut.

    Raises:
        OSError: It is, and cannot be removed.
    """
    path = secrets_folder() / name
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _entry(secret: object) -> dict[str, object]:
    if isinstance(secret, bytes):
        return {"base64": base64.b64encode(secret).decode("ascii")}
    return {"value": secret}


def _secret(entry: object) -> object:
    match entry:
        case {"value": value}:
            return value
        case {"base64": str(text)}:
            return base64.b64decode(text, validate=True)
    raise ValueError("it holds what is no secret")


def _make(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = folder.stat().st_mode
    if mode & _OTHERS:  # it was there before, or came from a backup
        folder.chmod(0o700)
    # Who makes the lock has had the names of the folders synced. That a folder is there does not say so:
    # who made it may have died since.
    if not (folder / _LOCK).exists():
        sync_folders(folder)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"secrets cannot be kept in {path}: {error.strerror or error}",
        hint="is there room on the disk, and is the folder yours? see PREFECTLITE_HOME",
    )
