"""Import a person's code, a module or a file, and tell its errors from ours.

``entrypoints`` loads flows here, and ``block_types`` the types that a person has registered. What is
imported is executed; nothing in it is called. It stays imported, and its folder first on ``sys.path``.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType

from prefectlite.errors import EntrypointError
from prefectlite.names import near_names

_IMPORTERS = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external"})
_FORMS = "an entrypoint is module:flow or path.py:flow"


def load_module(target: str, *, folder: Path | None = None) -> ModuleType:
    """Import a module, or a file, as far as that is not done yet, and return it.

    Args:
        target: A module's name or a file's path.
        folder: Where modules and relative paths are looked for; None for the current folder.

    Raises:
        EntrypointError: There is no such module or file, or its code failed. Only then ``__cause__`` is
            set, to what the code raised, and its traceback begins in that code.
    """
    if is_path(target):
        return _load_file(target, folder or Path())
    return _load_module(target, _current_folder() if folder is None else str(folder))


def is_path(target: str) -> bool:
    """Return whether an entrypoint, without its ``:flow``, names a file and not a module."""
    return target.endswith(".py") or "/" in target


def _load_module(name: str, folder: str | None) -> ModuleType:
    """Import a module as ``python -m`` finds it: from the folder first."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise EntrypointError(f"{name!r} is neither a module nor a Python file", hint=_FORMS)
    _put_first(folder)
    return _run(name, lambda: import_module(name), folder)


def _load_file(target: str, folder: Path) -> ModuleType:
    """Import a file much as a script is run, but under its own name, so that its objects pickle.

    The file's folder is first on ``sys.path``, and the module is called as the file is, without
    ``.py``, so that a worker process can import it too. A file that is called as another module (of
    the standard library, or loaded already) does not replace that one, but gets a name that no
    import finds: what is defined in it cannot be pickled to a worker process, until the file is
    renamed. A file that is loaded already is not loaded again.
    """
    path = _checked_path(target, folder)
    name = _module_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    _put_first(str(path.parent))
    return _run(target, lambda: _execute(name, path), str(path.parent))


def _checked_path(target: str, folder: Path) -> Path:
    path = folder / target
    try:
        path = path.resolve()
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise EntrypointError(f"there is no file {target!r}", hint=_near(path)) from None
    except IsADirectoryError:
        raise EntrypointError(f"{target!r} is a folder", hint=_FORMS) from None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL in the name
        raise EntrypointError(f"{target!r} cannot be read: {error}") from None
    if path.suffix != ".py":
        raise EntrypointError(f"{target!r} is not a Python file", hint="its name must end in .py")
    return path


def _near(path: Path) -> str:
    try:
        beside = [other.name for other in path.parent.glob("*.py")]
    except OSError:
        beside = []
    for name in near_names(path.name, beside)[:1]:
        return f"did you mean {name}?"
    return f"it was looked for in {path.parent}"


def _module_name(path: Path) -> str:
    name = path.stem
    owner = sys.modules.get(name)
    is_free = owner is None and name not in sys.stdlib_module_names
    # What is running as a script is __main__, whatever its file; it is not what was asked for.
    is_loaded = name != "__main__" and _is_of(owner, path)
    if (is_free or is_loaded) and "." not in name:
        return name
    return f"{name.replace('.', '_')}_{zlib.crc32(bytes(path)):08x}"


def _is_of(module: ModuleType | None, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _execute(name: str, path: Path) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EntrypointError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    # What a module puts in its own place is the module, as for any import.
    return sys.modules.get(name, module)


def _run(target: str, load: Callable[[], ModuleType], folder: str | None) -> ModuleType:
    """Import, and tell the person's own errors from those of the entrypoint."""
    try:
        return load()
    except EntrypointError:
        raise
    except SyntaxError as error:
        if (error.filename or "").startswith("<"):  # of what the code itself compiled
            raise _failed(target, error, f"{type(error).__name__}: {error}", None) from error
        raise _syntax_error(target, error) from None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{target}.".startswith(f"{missing}.") and not _in_user_code(error):
            raise EntrypointError(
                f"there is no module {missing!r}",
                hint=f"it is not installed, nor in {folder}; {_FORMS}",
            ) from None
        raise _failed(target, error, f"it needs {missing!r}", _hint_for(missing)) from error
    except SystemExit as error:
        hint = "put what is to run only as a script under: if __name__ == '__main__':"
        raise _failed(target, error, f"it exits ({error.code})", hint) from error
    except ImportError as error:
        fault = f"{type(error).__name__}: {error}"
        raise _failed(target, error, fault, _package_hint(error)) from error
    except Exception as error:
        raise _failed(target, error, f"{type(error).__name__}: {error}", None) from error


def _syntax_error(target: str, error: SyntaxError) -> EntrypointError:
    place = f"{error.filename or target}:{error.lineno or 1}"
    text = f": {error.text.strip()}" if error.text else ""
    return EntrypointError(f"{place}: {error.msg}{text}", hint="it is not valid Python")


def _failed(target: str, error: BaseException, fault: str, hint: str | None) -> EntrypointError:
    error.__traceback__ = _user_frames(error.__traceback__)
    return EntrypointError(f"{target} cannot be imported: {fault}", hint=hint)


def _hint_for(missing: str) -> str:
    package = missing.partition(".")[0]
    if package == "prefect":
        return "change prefect to prefectlite in its imports"
    return f"is {package} installed in this environment? ({sys.prefix})"


def _package_hint(error: ImportError) -> str | None:
    if "attempted relative import" in str(error):
        return "a file of a package is named as a module: package.module:flow"
    return None


def _user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback without what comes before the person's code: us, and the importer."""
    while traceback is not None and _is_machinery(traceback):
        traceback = traceback.tb_next
    return traceback


def _in_user_code(error: ImportError) -> bool:
    return _user_frames(error.__traceback__) is not None


def _is_machinery(traceback: TracebackType) -> bool:
    # By the module, since what is frozen into the interpreter has no file.
    name: str = traceback.tb_frame.f_globals.get("__name__", "")
    return name == __name__ or name.partition(".")[0] in _IMPORTERS


def _put_first(folder: str | None) -> None:
    if folder is not None and sys.path[:1] != [folder]:
        sys.path[:] = [folder, *(other for other in sys.path if other != folder)]


def _current_folder() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was deleted
        return None
