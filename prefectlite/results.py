"""What tasks return, kept in files; and the cache keys by which a result is found again.

The engine stores the results that are to outlive their process, and loads them. A result is one
pickle in the ``results`` folder of ``PREFECTLITE_HOME``. Unpickling runs code: whoever can write
there can run code as whoever loads a result. So the folder is 0700, a file 0600, and a file that
another user owns, or that others can write to, is never loaded. Nothing here is synced to the disk,
as the state of a task run is not: a file that a power cut tore is known by its checksum, and counts
as not stored.

Users pass ``task_input_hash`` as ``cache_key_fn``, or build a key with ``hash_objects``. A value is
hashed by what it is made of, as pickle sees it, but not by its pickle, whose bytes also tell which
strings were shared and in which order a set was filled; nor with ``hash()``, which differs from
process to process. What cannot be hashed has no key.

Nothing here touches the registry.
"""

from __future__ import annotations

import enum
import fcntl
import hashlib
import os
import pickle
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from prefectlite.errors import OutputError, ResultNotStoredError
from prefectlite.settings import PREFECTLITE_HOME

# The first bytes of each file: what it is, in which format; then the SHA-256 of the pickle.
_MAGIC = b"prefectlite result 1\n"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_OTHERS_MAY_WRITE = 0o022
# Letters of ids and hashes; another key could name another file or folder.
_SAFE = frozenset("0123456789abcdef-")
_SAFE_CHARACTERS = 64

# A code object without its file and line numbers, which do not change what it does.
_CODE_PARTS = [
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_flags",
    "co_code",
    "co_consts",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
]
# Of object.__reduce_ex__: the last that copies an array's bytes, which later ones may leave out.
_REDUCE_PROTOCOL = 4


class _HasFunction(Protocol):
    @property
    def fn(self) -> Callable[..., object]: ...


class _HasTask(Protocol):
    @property
    def task(self) -> _HasFunction: ...


def store_result(key: str, value: object) -> None:
    """Write a value under a key, in place of what was there; all of it or nothing.

    Safe to call from many processes at once: the last one wins.

    Args:
        key: A run's id, or a cache key: any text.
        value: Anything that can be pickled.

    Raises:
        ResultNotStoredError: It cannot be pickled, or not be written.
    """
    payload = _pickled(value)
    path = _path(key)
    part = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        _make_folder(path.parent)
        try:
            _write(path, part, _MAGIC + hashlib.sha256(payload).digest() + payload)
        except BaseException:  # a timeout or a cancellation may fall into a long write
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ResultNotStoredError(
            f"the result cannot be written to {path.parent}: {error.strerror}",
            hint="is there room on the disk, and is the folder yours? see PREFECTLITE_HOME",
        ) from error


def load_result(key: str) -> object:
    """Return the value that was stored under a key.

    Raises:
        ResultNotStoredError: There is none; or it is damaged, not safe to load, or needs a class
            or module that is not here.
    """
    path = _path(key)
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = file.read()
    except FileNotFoundError:
        raise ResultNotStoredError(f"there is no stored result {key!r}") from None
    except OSError as error:
        raise ResultNotStoredError(f"{path} cannot be read: {error.strerror}") from error
    header, payload = content[:_HEADER_BYTES], memoryview(content)[_HEADER_BYTES:]
    if header != _MAGIC + hashlib.sha256(payload).digest():
        raise ResultNotStoredError(f"the stored result {path} is damaged", hint="delete it")
    try:
        value: object = pickle.loads(payload)  # noqa: S301 - ours alone, by _check_owner
    except Exception as error:
        raise ResultNotStoredError(
            f"the stored result {path} cannot be loaded: {type(error).__name__}: {error}",
            hint="can the modules that define its classes be imported here?",
        ) from error
    return value


def delete_results(keys: Iterable[str]) -> None:
    """Delete what is stored under keys, where anything is.

    Raises:
        OutputError: A file is there and cannot be deleted; those of the other keys are.
    """
    problem: OSError | None = None
    folder = results_folder()
    for key in keys:
        try:
            # One for every task run of a registry, mostly in vain.
            os.unlink(f"{folder}/{_name(key)}")  # noqa: PTH108 - pathlib costs as much again
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = error
    if problem is not None:
        raise OutputError(
            f"{problem.filename} cannot be deleted: {problem.strerror}",
            hint="its run is off the record; delete the file, too, when the disk lets you",
        )


def unfinished_results(*, before: float) -> list[Path]:
    """Return the files that whoever wrote them was killed over.

    Args:
        before: Only those that are older than this POSIX timestamp.
    """
    with suppress(OSError):
        parts = results_folder().glob(f".[0-9a-f]*.{'[0-9a-f]' * 16}")
        return [part for part in parts if _is_abandoned(part, before)]
    return []


def task_input_hash(context: _HasTask, parameters: Mapping[str, object]) -> str | None:
    """Return the cache key of a call: the same code called with the same values.

    Better than Prefect 2.8's, the key also changes with the constants in the code, and with the
    variables that the function closes over. It does not see the functions that it calls, nor the
    global variables that it reads.

    Args:
        context: The task run's context, of which only ``task.fn`` is used.
        parameters: The call's parameters by name.

    Returns:
        64 hexadecimal digits; None where a value cannot be hashed, so that the task always runs.
    """
    return hash_objects(context.task.fn, dict(parameters))


def hash_objects(*values: object, **named: object) -> str | None:
    """Return the SHA-256 of the values as 64 hexadecimal digits, the same in every process.

    Values that are equal but not of one type (1, 1.0, True) differ. The order of a set or of a
    dict's keys does not count.

    Returns:
        None where one of them cannot be hashed: an open file, a lock, a generator.
    """
    try:
        return _Hasher().digest((values, named)).hex()
    except Exception:  # noqa: BLE001 - reducing a value runs code of the user's; also RecursionError
        return None


def results_folder() -> Path:
    """Return where the results are; it may not exist yet."""
    return PREFECTLITE_HOME.value() / "results"


def _path(key: str) -> Path:
    return results_folder() / _name(key)


def _name(key: str) -> str:
    is_safe = 0 < len(key) <= _SAFE_CHARACTERS and _SAFE.issuperset(key)
    return key if is_safe else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ResultNotStoredError(
            f"the result, a {type(value).__name__}, cannot be pickled: {error}",
            hint="return data, or set persist_result=False on the task or flow",
        ) from error


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, part: Path, content: bytes) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):  # the filesystem has no locks
            # Held until it has its name: what has none and is free was left by who was killed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        part.replace(path)
    finally:
        os.close(descriptor)


def _is_abandoned(part: Path, before: float) -> bool:
    try:
        if part.lstat().st_mtime >= before:
            return False
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it has its name now, or is another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
        raise ResultNotStoredError(
            f"the stored result {path} is not loaded: others own it or can write to it",
            hint=f"if you trust it: chown and chmod 600 {path}",
        )


class _Hasher:
    """The hash of one value, of which parts may refer back to what they are in."""

    def __init__(self) -> None:
        self._path: list[int] = []

    def digest(self, value: object) -> bytes:
        """Return the SHA-256 of one value with all that is in it."""
        plain = _plain_text(value)
        if plain is not None:
            return _digest(type(value).__name__, [plain])
        if id(value) in self._path:
            # By how far up it is, since an address means nothing elsewhere.
            up = len(self._path) - self._path.index(id(value))
            return _digest("itself", [str(up).encode()])
        self._path.append(id(value))
        try:
            return self._compound(value)
        finally:
            self._path.pop()

    def _compound(self, value: Any) -> bytes:  # noqa: ANN401 - told apart here
        kind = type(value)
        if kind is list or kind is tuple:
            return _digest(kind.__name__, map(self.digest, value))
        if kind is set or kind is frozenset:
            return _digest(kind.__name__, sorted(map(self.digest, value)))
        if kind is dict:
            pairs = [self.digest(key) + self.digest(one) for key, one in value.items()]
            return _digest("dict", sorted(pairs))
        if isinstance(value, enum.Enum):
            return self._all("enum", type(value), value.name)
        described = self._described(value)
        if described is not None:
            return described
        return self._reduced(value)

    def _described(self, value: Any) -> bytes | None:  # noqa: ANN401 - told apart here
        """Hash what pickle would only name, a function by its code."""
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            defaults = (value.__defaults__, value.__kwdefaults__)
            return self._all("function", _named(value), value.__code__, cells, defaults)
        if isinstance(value, types.CodeType):
            return self._all("code", *(getattr(value, part) for part in _CODE_PARTS))
        if isinstance(value, type | types.BuiltinFunctionType) and _is_named_only(value):
            return self._all("name", _named(value))
        if isinstance(value, types.ModuleType):
            return self._all("module", value.__name__)
        return None

    def _reduced(self, value: object) -> bytes:
        reduced: Any = value.__reduce_ex__(_REDUCE_PROTOCOL)
        if isinstance(reduced, str):
            return self._all("name", type(value).__module__, reduced)
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        items = None if items is None else [*items]
        pairs = None if pairs is None else dict(pairs)
        # What makes an object is a function of its module's, and its name says which.
        made_by = _named(make) if isinstance(make, types.FunctionType) else make
        return self._all("object", made_by, arguments, state, items, pairs)

    def _all(self, kind: str, *values: object) -> bytes:
        return _digest(kind, map(self.digest, values))


def _plain_text(value: Any) -> bytes | None:  # noqa: ANN401 - told apart here
    """Return the bytes that a value of a built-in scalar type is, exactly; else None."""
    kind = type(value)
    if kind is str:
        return bytes(value.encode("utf-8", "surrogatepass"))
    if kind is bytes or kind is bytearray:
        return bytes(value)
    if kind is int:
        return b"%x" % value
    if value is None or value is ... or kind in {bool, float, complex}:
        return repr(value).encode("ascii")
    return None


def _digest(kind: str, parts: Iterable[bytes]) -> bytes:
    # Parts need no bounds between them: each is a digest, or it is the only one.
    return hashlib.sha256(kind.encode("utf-8") + b"\0" + b"".join(parts)).digest()


def _is_named_only(value: Any) -> bool:  # noqa: ANN401 - a class or a built-in
    # A built-in method is bound to an object, which must count; a built-in function to its module.
    owner = getattr(value, "__self__", None)
    return isinstance(value, type) or owner is None or isinstance(owner, types.ModuleType)


def _named(value: Any) -> tuple[str, str]:  # noqa: ANN401 - a class or a function
    """Return the module and the name, the same for a script that is run and one that is imported."""
    module: str = value.__module__ or ""
    code = getattr(value, "__code__", None)
    if module == "__main__" and code is not None:
        module = Path(code.co_filename).stem
    return module, value.__qualname__
