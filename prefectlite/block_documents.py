"""Save, find and delete blocks, their secrets with them: the registry has the rest.

``blocks`` and ``infrastructure`` come here, and the command line. Nothing here knows a class. What keeps a
row and its file together, whatever dies when: a file's name is on record before it is written; a file
is complete before a row names it; and what no row names is removed by whoever saves or deletes next.
All of it happens in ``secret_files.writing``, so that nobody removes what another is about to name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from prefectlite.block_records import BlockDocument, Place, SecretPlace, place_text
from prefectlite.errors import BlockNotLoadedError, OutputError, PrefectLiteError, UsageError
from prefectlite.json_values import MASK
from prefectlite.names import is_slug, new_id
from prefectlite.registry import open_registry
from prefectlite.registry_parts import BlockRegistry
from prefectlite.secret_files import (
    read_secrets,
    remove_secrets,
    secrets_folder,
    write_secrets,
    writing,
)
from prefectlite.settings import PREFECTLITE_REGISTRY


def save_document(
    document: BlockDocument, fields: Mapping[str, object], *, overwrite: bool
) -> BlockDocument:
    """Put a block on record, durably; safe from several processes at once.

    Args:
        document: With the places of its secrets, and without ``fields`` and ``secrets_file``.
        fields: JSON-able values, in which secrets stand as they are, some perhaps as bytes.
        overwrite: Replace the one of the same type and name.

    Returns:
        It, as it is on record.

    Raises:
        UsageError: Its name is none.
        ConflictError: There is one, and it is not to be replaced.
        OutputError: Its secrets cannot be written, or those of the one before not be removed.
    """
    check_block_name(document.name)
    tables = open_registry(PREFECTLITE_REGISTRY.value()).blocks
    kept, secrets = _parted(fields, document.secrets)
    document = replace(document, fields=kept, updated_at=document.created_at)
    with writing():
        try:
            if secrets:
                document = replace(document, secrets_file=new_id())
                _write(tables, document, secrets)
            saved = tables.save_block(document, overwrite=overwrite)
        except BaseException:
            with suppress(PrefectLiteError):  # what went wrong first is what matters
                _remove_unused(tables)
            raise
        _remove_unused(tables)
    return saved


def find_document(type_: str, name: str) -> tuple[BlockDocument, dict[str, Any]]:
    """Return a block as it is on record, and its fields with the secrets where they stand.

    Raises:
        NotFoundError: There is none.
        BlockNotLoadedError: Its secrets are gone, or cannot be read.
    """
    tables = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).blocks
    document = tables.find_block(type_, name)
    while True:
        try:
            return document, _with_secrets(document)
        except FileNotFoundError:
            again = tables.find_block(type_, name)
            if again.secrets_file == document.secrets_file:
                raise _without_secrets(document, "is gone") from None
            document = again  # the other was replaced just now
        except (OSError, ValueError, RecursionError) as error:
            told = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise _without_secrets(document, f"cannot be read: {told}") from None


def delete_document(type_: str, name: str) -> None:
    """Delete a block with its secrets.

    Raises:
        NotFoundError: There is none.
        OutputError: Its secrets cannot be removed; it is off the record.
    """
    tables = open_registry(PREFECTLITE_REGISTRY.value()).blocks
    with writing():
        tables.delete_block(type_, name)
        _remove_unused(tables)


def remove_unused_secrets() -> None:
    """Remove the files of secrets that no block names.

    Raises:
        OutputError: One cannot be removed.
    """
    with writing():
        _remove_unused(open_registry(PREFECTLITE_REGISTRY.value()).blocks)


def reference_parts(reference: str) -> tuple[str, str]:
    """Return the type and the name that ``type/name`` is made of.

    Raises:
        UsageError: It is not of that form.
    """
    type_, _, name = reference.partition("/")
    if not is_reference(reference):
        raise UsageError(
            f"{reference!r} is no block", hint="a block is TYPE/NAME, such as slack-webhook/default"
        )
    return type_, name


def is_reference(text: str) -> bool:
    """Return whether a text is of the form ``type/name``."""
    type_, _, name = text.partition("/")
    return is_slug(type_) and is_slug(name)


def check_block_name(name: object) -> None:
    """Refuse what is no name for a block.

    Raises:
        UsageError: It is none.
    """
    if not isinstance(name, str) or not is_slug(name):
        raise UsageError(
            f"{name!r} cannot be the name of a block",
            hint="a name has lower-case letters, digits and hyphens: big-box-2",
        )


def put(value: Any, place: Place, item: object) -> Any:  # noqa: ANN401 - JSON, or what is to become it
    """Return a copy of a value, made of dicts and lists, that has an item at a place."""
    if not place:
        return item
    step, *rest = place
    copy = value.copy()
    copy[step] = put(value[step], tuple(rest), item)
    return copy


def at(value: Any, place: Place) -> Any:  # noqa: ANN401 - JSON
    """Return what stands at a place of a value that is made of dicts and lists."""
    for step in place:
        value = value[step]
    return value


def _with_secrets(document: BlockDocument) -> dict[str, Any]:
    fields = {**document.fields}
    if document.secrets_file is None:
        return fields
    secrets = read_secrets(document.secrets_file)
    if len(secrets) != len(document.secrets):
        raise ValueError("it holds another number of secrets")
    for secret, value in zip(document.secrets, secrets, strict=True):
        fields = put(fields, secret.place, value)
    return fields


def _parted(
    fields: Mapping[str, object], secrets: Sequence[SecretPlace]
) -> tuple[Mapping[str, object], list[object]]:
    """Return the fields without what is secret, and that, in the order of its places."""
    values = [at(fields, secret.place) for secret in secrets]
    for secret in secrets:
        fields = put(dict(fields), secret.place, MASK)
    return fields, values


def _write(tables: BlockRegistry, document: BlockDocument, secrets: Sequence[object]) -> None:
    name = document.secrets_file or ""
    tables.list_secrets_file(name)
    write_secrets(name, secrets)


def _remove_unused(tables: BlockRegistry) -> None:
    """Remove the files that no block names any more, and those that none came to name.

    Raises:
        OutputError: One cannot be removed; whoever comes here next tries again.
    """
    problem: OSError | None = None
    for name in tables.unused_secrets_files():
        try:
            remove_secrets(name)
        except OSError as error:
            problem = error
        else:
            tables.unlist_secrets_file(name)
    if problem is not None:
        raise OutputError(
            f"the registry is changed, but old secrets cannot be removed: {problem}",
            hint=f"remove what you can in {secrets_folder()}, or see to its permissions",
        )


def _without_secrets(document: BlockDocument, told: str) -> BlockNotLoadedError:
    places = ", ".join(place_text(secret.place) for secret in document.secrets)
    return BlockNotLoadedError(
        f"the block {document.full_name!r} has secrets ({places}), and the file"
        f" {secrets_folder() / (document.secrets_file or '')} that holds them {told}",
        hint=f"save it again, with overwrite; or: prefectlite block delete {document.full_name}",
    )
