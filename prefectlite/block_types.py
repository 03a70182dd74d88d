"""Types of blocks by their names: where the class of one is, found when it is asked for.

``blocks`` makes each class known here as it is defined, and finds here those that are not. A type comes
with prefectlite (a file of ``blocks/``), is a kind of infrastructure, is an entry point of the group
``prefectlite.blocks``, or was registered by a person.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from inspect import isabstract
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prefectlite import plugins
from prefectlite.block_documents import find_document
from prefectlite.block_records import BlockType
from prefectlite.errors import (
    BlockNotLoadedError,
    ConflictError,
    EntrypointError,
    NotFoundError,
    SettingError,
    UsageError,
)
from prefectlite.names import is_slug, near_hint
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.user_code import load_module

if TYPE_CHECKING:
    from prefectlite.blocks import Block


@dataclass(frozen=True, slots=True)
class TypeOutline:
    """A type, and where its class comes from.

    Attributes:
        source: ``built in``, ``infrastructure``, ``registered`` or ``entry point``.
        entrypoint: The module or file that defines it.
    """

    type: str
    source: str
    entrypoint: str

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return asdict(self)


#: The classes that are defined in this process, by type; of one that was defined again, the last.
known: dict[str, type[Block]] = {}


def find_class(type_: str) -> type[Block]:
    """Return the class of a type; imports what defines it.

    Raises:
        NotFoundError: There is no such type here.
        EntrypointError: It was registered, and cannot be imported.
    """
    if type_ not in known:
        load_built_in()
    if type_ not in known:
        _load_registered(type_)
    if type_ not in known:
        _load_entry_point(type_)
    if type_ not in known:
        raise NotFoundError(
            f"there is no block type {type_!r}",
            hint=near_hint(type_, known)
            or "see: prefectlite block type ls; your own: prefectlite block register -m MODULE",
        )
    return known[type_]


def is_infrastructure(type_: str) -> bool:
    """Return whether the blocks of a type are infrastructure, which has classes of its own."""
    return type_ in infrastructure_types()


def infrastructure_types() -> list[str]:
    """Return the kinds of infrastructure that come with prefectlite."""
    return plugins.names("infrastructure")


def load_infrastructure_block(type_: str, name: str) -> Any:  # noqa: ANN401 - of a class that is found by its name
    """Return the infrastructure that is on record as a block.

    Raises:
        NotFoundError: There is none.
        BlockNotLoadedError: Its fields are not what they must be, or its secrets are gone.
    """
    document, fields = find_document(type_, name)
    try:
        return plugins.load("infrastructure", type_).from_fields({**fields, "type": type_})
    except UsageError as error:
        raise BlockNotLoadedError(
            f"the block {document.full_name!r} does not fit its type: {error}",
            hint="was it saved by an older or newer version? save it again, with overwrite; see:"
            f" prefectlite block inspect {document.full_name}",
        ) from error


def load_built_in() -> None:
    """Import the types that come with prefectlite."""
    for name in plugins.names("blocks"):
        plugins.load("blocks", name)


def notifying_types() -> list[str]:
    """Return the types that can notify, of those that come with prefectlite or are known here."""
    load_built_in()
    return sorted(
        type_
        for type_, class_ in known.items()
        if hasattr(class_, "notify") and not isabstract(class_)
    )


def list_types() -> list[TypeOutline]:
    """Return the types that there are, by name. Of those that are not ours nothing is imported."""
    from importlib.metadata import entry_points

    load_built_in()
    found = {
        type_: TypeOutline(type_, "entry point", entry_point.value)
        for entry_point in entry_points(group="prefectlite.blocks")
        if is_slug(type_ := entry_point.name)
    }
    tables = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).blocks
    for one in tables.list_block_types():
        found[one.type] = TypeOutline(one.type, "registered", one.entrypoint)
    for type_, class_ in _ours().items():
        found[type_] = TypeOutline(type_, "built in", class_.__module__)
    for type_ in infrastructure_types():
        found[type_] = TypeOutline(type_, "infrastructure", f"prefectlite.infrastructure.{type_}")
    return [found[type_] for type_ in sorted(found)]


def register_types(target: str) -> list[BlockType]:
    """Import a module or a file, and put on record that its types are there; return them.

    Args:
        target: A module's name, seen from the current folder, or a file's absolute path.

    Raises:
        EntrypointError: It cannot be imported, or defines none.
        ConflictError: One of them has the name of a type that comes with prefectlite.
    """
    load_built_in()
    taken = {*_ours(), *infrastructure_types()}
    found = [BlockType(type_, target) for type_ in _types_in(_load(target))]
    if not found:
        raise EntrypointError(
            f"{target} defines no block type", hint="a type is a class: class MyBlock(Block)"
        )
    for one in found:
        if one.type in taken:
            raise ConflictError(
                f"the block type {one.type!r} of {target} has the name of one of prefectlite's",
                hint="give it another: _block_type_slug = 'my-" + one.type + "'",
            )
    open_registry(PREFECTLITE_REGISTRY.value()).blocks.save_block_types(found)
    return found


def _ours() -> dict[str, type[Block]]:
    return {
        type_: class_
        for type_, class_ in known.items()
        if class_.__module__.startswith("prefectlite.blocks.") and not isabstract(class_)
    }


def _types_in(module: ModuleType) -> list[str]:
    """Return the types that a module defines, or else those that it has from elsewhere."""
    classes = {class_: type_ for type_, class_ in known.items()}
    found = [one for one in vars(module).values() if isinstance(one, type) and one in classes]
    own = [one for one in found if one.__module__ == module.__name__]
    return sorted({classes[one] for one in own or found})


def _load_registered(type_: str) -> None:
    tables = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).blocks
    for one in tables.list_block_types():
        if one.type != type_:
            continue
        try:
            _load(one.entrypoint)
        except EntrypointError as error:
            raise EntrypointError(
                f"the block type {type_!r} is registered as defined in {one.entrypoint}: {error}",
                hint=f"{error.hint or 'mend that'}; or: prefectlite block register",
            ) from error.__cause__


def _load_entry_point(type_: str) -> None:
    try:
        found: Any = plugins.load("blocks", type_)
    except SettingError:
        return
    if isinstance(found, type):
        known.setdefault(type_, found)


def _load(target: str) -> ModuleType:
    before = [*sys.path]
    try:
        return load_module(target)
    finally:
        sys.path[:] = before
