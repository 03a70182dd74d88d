"""Entrypoints: from ``module:flow`` or ``path.py:flow`` to the flow itself.

The command line, deployments and execute load flows here. What is loaded is a person's code: it is
imported, and nothing in it is called. What that code raises is reported as theirs.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from prefectlite.errors import EntrypointError

if TYPE_CHECKING:
    from prefectlite.flows import Flow

_IMPORTERS = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external"})
_FORMS = "an entrypoint is module:flow or path.py:flow"


def load_flow(entrypoint: str, *, folder: Path | None = None) -> Flow[..., object]:
    """Import what an entrypoint names and return its flow.

    Args:
        entrypoint: ``module:flow``, ``path.py:flow``, or either without ``:flow`` when one flow
            is defined there. Flows that are imported from elsewhere count if there are no others.
        folder: Where modules and relative paths are looked for; None for the current folder.

    Raises:
        EntrypointError: There is no such module, file or flow, or not one alone; or its code
            failed. Only then ``__cause__`` is set, to what the code raised, and its traceback
            begins in that code.
    """
    target, name = _parted(entrypoint)
    if is_path(target):
        module = _load_file(target, folder or Path())
    else:
        module = _load_module(target, _current_folder() if folder is None else str(folder))
    return _only_flow(module, target) if name is None else _named_flow(module, target, name)


def absolute(entrypoint: str, folder: Path) -> str:
    """Return an entrypoint that does not depend on the current folder; a module's stays as it is.

    Args:
        entrypoint: As ``load_flow`` takes it.
        folder: Where a relative path is looked for.
    """
    target, name = _parted(entrypoint)
    if is_path(target):
        target = str(folder / target)
    return target if name is None else f"{target}:{name}"


def is_running_program(entrypoint: str, folder: Path) -> bool:
    """Return whether an entrypoint names the very script that this process runs.

    To load it would run it once more, beside itself, with all that it does at its top.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    target, _ = _parted(entrypoint)
    path = target if is_path(target) else f"{target.replace('.', '/')}.py"
    return script is not None and Path(script).resolve() == (folder / path).resolve()


def _parted(entrypoint: str) -> tuple[str, str | None]:
    target, colon, name = entrypoint.rpartition(":")
    # A colon may also be part of a path.
    if not colon or is_path(name):
        target, name = entrypoint, ""
    if not target or (colon and not name and target != entrypoint):
        raise EntrypointError(f"{entrypoint!r} is not an entrypoint", hint=_FORMS)
    return target, name or None


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
    from difflib import get_close_matches

    try:
        beside = [other.name for other in path.parent.glob("*.py")]
    except OSError:
        beside = []
    for name in get_close_matches(path.name, beside, n=1):
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


def _flows(module: ModuleType) -> dict[str, Flow[..., object]]:
    """Return a module's flows by name: its own, or the imported ones if there are no others."""
    from prefectlite.flows import Flow

    found: dict[int, tuple[str, Flow[..., object]]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Flow):
            found.setdefault(id(value), (name, value))
    flows = dict(found.values())
    own = {
        name: flow
        for name, flow in flows.items()
        if getattr(flow.fn, "__module__", None) == module.__name__
    }
    return own or flows


def _only_flow(module: ModuleType, target: str) -> Flow[..., object]:
    flows = _flows(module)
    if not flows:
        raise EntrypointError(
            f"there is no flow in {target}", hint="decorate a function in it with @flow"
        )
    if len(flows) > 1:
        raise EntrypointError(
            f"there are {len(flows)} flows in {target}: {', '.join(flows)}",
            hint=f"say which one, such as {target}:{next(iter(flows))}",
        )
    return next(iter(flows.values()))


def _named_flow(module: ModuleType, target: str, name: str) -> Flow[..., object]:
    from prefectlite.flows import Flow

    if name not in vars(module):
        raise EntrypointError(
            f"there is no {name!r} in {target}", hint=_near_flow(name, _flows(module), target)
        )
    value = vars(module)[name]
    if not isinstance(value, Flow):
        what, hint = _what_instead(value, name)
        raise EntrypointError(f"{name!r} in {target} is {what}, not a flow", hint=hint)
    return value


def _near_flow(name: str, flows: Mapping[str, Flow[..., object]], target: str) -> str:
    from difflib import get_close_matches

    # A flow's own name is what listings show, so it is what a person may give.
    known = {flow.name: variable for variable, flow in flows.items()}
    known |= {variable: variable for variable in flows}
    for near in get_close_matches(name, known, n=1):
        return f"did you mean {target}:{known[near]}?"
    return f"its flows are: {', '.join(flows)}" if flows else "no flow is defined in it"


def _what_instead(value: object, name: str) -> tuple[str, str]:
    from prefectlite.tasks import Task

    kind = type(value)
    if isinstance(value, Task):
        return "a task", f"call {name}() from a function that is decorated with @flow"
    if kind.__module__.partition(".")[0] == "prefect":
        return f"a {kind.__name__} of Prefect", "change prefect to prefectlite in its imports"
    if isinstance(value, type):
        return "a class", "decorate a function with @flow"
    if callable(value):
        return "a plain function", f"decorate {name} with @flow"
    return f"of type {kind.__name__}", "decorate a function with @flow"
