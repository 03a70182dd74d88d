"""Keep configuration and secrets on record as blocks, and see which there are.

``prefectlite block``. A secret is shown by ``inspect --show-secrets`` alone, and no message shows a value
that was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefectlite import console
from prefectlite.block_records import BlockDocument, place_text
from prefectlite.commands import Argument, Option
from prefectlite.errors import UsageError
from prefectlite.given_texts import all_texts, read_pairs
from prefectlite.listings import JsonListOption, JsonOption, writable_registry
from prefectlite.record_tables import Column, Listing, RecordTable, show_all
from prefectlite.references import FROM_STDIN, ONE_FROM_STDIN, find_each, find_one
from prefectlite.registry import open_registry
from prefectlite.settings import PREFECTLITE_REGISTRY

if TYPE_CHECKING:
    from prefectlite.blocks import Block
    from prefectlite.infrastructure import Infrastructure

_Reference = Annotated[
    str,
    Argument(
        f"The block, by its type and name{ONE_FROM_STDIN}.", metavar="TYPE/NAME", complete="block"
    ),
]
_Values = Annotated[
    list[str] | None,
    Argument(
        "A field: JSON, or else plain text. A dotted key is an entry of a table, and TYPE/NAME a"
        " block.",
        metavar="KEY=VALUE",
    ),
]
_FromEnv = Annotated[
    list[str] | None,
    Option(
        "--from-env",
        description="A field from the environment: from VARIABLE, or from KEY in upper case; may be"
        " repeated.",
        metavar="KEY[=VARIABLE]",
    ),
]
_Stdin = Annotated[
    list[str] | None,
    Option(
        "--stdin",
        description="A field from stdin; on a terminal it is asked for without echo, and may be"
        " repeated.",
        metavar="KEY",
    ),
]
_BLOCKS: RecordTable[BlockDocument] = RecordTable(
    columns=(
        Column("block", attrgetter("full_name"), is_cut=True),
        Column("secrets", lambda document: len(document.secrets)),
        Column("created", attrgetter("created_at")),
        Column("updated", attrgetter("updated_at")),
        Column("type", attrgetter("type"), is_default=False),
        Column("name", attrgetter("name"), is_default=False, is_cut=True),
        Column("id", attrgetter("id"), is_default=False, is_id=True),
    ),
    keep=("block", "updated"),
    document=BlockDocument.dict,
    reference=attrgetter("full_name"),
)


def ls(
    *,
    type_: Annotated[
        str | None,
        Option(
            "--type",
            description="Only those of this type.",
            metavar="TYPE",
            complete="block-type",
        ),
    ] = None,
    listing: Listing,
) -> None:
    """List blocks by type and name, without their secrets.

    Columns: block, secrets, created, updated, type, name, id.

    Examples:
        prefectlite block ls
        prefectlite block ls --type slack-webhook --json
    """
    tables = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).blocks
    show_all(tables.list_blocks(type_), _BLOCKS, listing)


def inspect(
    reference: _Reference,
    *,
    show_secrets: Annotated[
        bool, Option("--show-secrets", description="Show secrets as they are.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a block. Its secrets are hidden, unless they are asked for.

    Examples:
        prefectlite block inspect slack-webhook/default
        prefectlite block inspect secret/api-key --show-secrets --json
    """
    from prefectlite.block_documents import find_document, reference_parts

    type_, name = find_one(reference, reference_parts)
    if show_secrets:
        document, fields = find_document(type_, name)
        document_fields = {key: _readable(value) for key, value in fields.items()}
    else:
        tables = open_registry(PREFECTLITE_REGISTRY.value(), read_only=True).blocks
        document = tables.find_block(type_, name)
        document_fields = {**document.fields}
    if as_json:
        console.out_json({**document.dict(), "fields": document_fields})
        return
    console.out_fields(
        {
            "Block": document.full_name,
            "ID": document.id,
            **{
                f"  {console.escaped(key)}": value
                if isinstance(value, str)
                else console.json_text(value)
                for key, value in document_fields.items()
            },
            "Secrets": ", ".join(place_text(secret.place) for secret in document.secrets),
            "Created": console.moment_text(document.created_at),
            "Updated": console.moment_text(document.updated_at),
        }
    )


def create(
    type_: Annotated[
        str,
        Argument(
            "The type; see: prefectlite block type ls.", metavar="TYPE", complete="block-type"
        ),
    ],
    name: Annotated[
        str, Argument("A name: lower-case letters, digits and hyphens.", metavar="NAME")
    ],
    values: _Values = None,
    *,
    from_env: _FromEnv = None,
    stdin: _Stdin = None,
    overwrite: Annotated[
        bool, Option("--overwrite", description="Replace the block if there is one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a block, or replace one.

    A secret is better given with --from-env or --stdin than as KEY=VALUE: the arguments of a command
    can be seen by others while it runs, and stay in the shell's history.

    Examples:
        prefectlite block create secret api-key --stdin value
        prefectlite block create slack-webhook default --from-env url=SLACK_URL
        prefectlite block create process big-box environment.A=1 working_directory=/srv
    """
    from prefectlite.block_documents import check_block_name
    from prefectlite.block_types import is_infrastructure

    check_block_name(name)
    given = read_pairs(values or [], first=3)
    texts = all_texts(given, from_env or [], stdin or [])
    if is_infrastructure(type_):
        _save_infrastructure(type_, name, texts, overwrite=overwrite)
    else:
        from prefectlite.block_fields import from_texts

        class_ = _class(type_)
        _warn(class_, given)
        _made(class_, from_texts(class_, texts)).save(name, overwrite=overwrite)
    _show_saved("Saved", type_, name, as_json=as_json)


def set(  # noqa: A001 - the command's name
    reference: _Reference,
    values: _Values = None,
    *,
    from_env: _FromEnv = None,
    stdin: _Stdin = None,
    as_json: JsonOption = False,
) -> None:
    """Change some fields of a block, and keep the rest, secrets included.

    A secret is better given with --from-env or --stdin than as KEY=VALUE, as with create.

    Examples:
        prefectlite block set secret/api-key --stdin value
        prefectlite block set warehouse/prod host=db2.example.org login.user=me
    """
    from prefectlite.block_documents import reference_parts
    from prefectlite.block_types import is_infrastructure, load_infrastructure_block

    type_, name = find_one(reference, reference_parts)
    given = read_pairs(values or [], first=2)
    if not (values or from_env or stdin):
        raise UsageError("nothing is given to change", hint="give KEY=VALUE, --from-env or --stdin")
    texts = all_texts(given, from_env or [], stdin or [])
    if is_infrastructure(type_):
        base = load_infrastructure_block(type_, name)
        _save_infrastructure(type_, name, texts, overwrite=True, base=base)
    else:
        from prefectlite.block_fields import changed, from_texts
        from prefectlite.blocks import load_fields

        class_ = _class(type_)
        _warn(class_, given)
        fields = changed(load_fields(class_, name), from_texts(class_, texts), texts)
        _made(class_, fields).save(name, overwrite=True)
    _show_saved("Changed", type_, name, as_json=as_json)


def delete(
    references: Annotated[
        list[str],
        Argument(
            f"Blocks, by their types and names{FROM_STDIN}.", metavar="TYPE/NAME", complete="block"
        ),
    ],
    *,
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list of the deleted blocks.")
    ] = False,
) -> None:
    """Delete blocks with their secrets, and say what named them.

    Nothing is deleted unless all of them are there.

    Examples:
        prefectlite block delete slack-webhook/default secret/api-key
    """
    from prefectlite.block_documents import delete_document, reference_parts

    tables = writable_registry().blocks
    documents = find_each(references, lambda one: tables.find_block(*reference_parts(one)))
    for document in documents:
        delete_document(document.type, document.name)
        _tell("Deleted", document)
    for document in documents:
        users = ", ".join(_users(document.full_name))
        if users:
            console.note(f"block '{document.full_name}' is still named by: {users}")
    if as_json:
        console.out_json([document.dict() for document in documents])


def register(
    *,
    module: Annotated[
        str | None,
        Option(
            "--module",
            "-m",
            description="The module that defines them; whoever loads a block must be able to import"
            " it: from this folder, or because it is installed.",
            metavar="MODULE",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        Option(
            "--file",
            "-f",
            description="The file that defines them; it is found from any folder.",
            metavar="FILE",
        ),
    ] = None,
    as_json: JsonListOption = False,
) -> None:
    """Put on record where your own block types are: classes with the base Block.

    Whoever loads a block of such a type then imports that module or file.

    Examples:
        prefectlite block register -f my_blocks.py
        prefectlite block register -m my_package.blocks --json
    """
    from prefectlite.block_types import register_types
    from prefectlite.parameter_options import stdout_to_stderr
    from prefectlite.user_code import is_path

    if (module is None) == (file is None):
        raise UsageError(
            "give either --module or --file", hint="see: prefectlite block register -h"
        )
    if module is not None and is_path(module):
        raise UsageError(f"{module!r} is a file, and no module", hint=f"give it as: -f {module}")
    before = {one.type: one.entrypoint for one in writable_registry().blocks.list_block_types()}
    with stdout_to_stderr():
        types = register_types(module or str(file and file.absolute()))
    for one in types:
        told = f"Registered block type '{one.type}' of {one.entrypoint}"
        replaced = before.get(one.type, one.entrypoint)
        if replaced != one.entrypoint:
            told += f", instead of {replaced}"
        console.say(console.escaped(told))
    if as_json:
        console.out_json([one.dict() for one in types])


def _users(full_name: str) -> Iterator[str]:
    """Return what names a block, in words."""
    from prefectlite.overrides import BLOCK

    registry = writable_registry()
    for rule in registry.notifications.list_rules():
        if rule.block == full_name:
            yield f"notification rule {rule.id}"
    for deployment in registry.deployments.list_deployments():
        if deployment.infrastructure.get(BLOCK) == full_name:
            yield f"deployment '{deployment.full_name}'"
    for document in registry.blocks.list_blocks():
        if full_name in {f"{nested.type}/{nested.name}" for nested in document.blocks}:
            yield f"block '{document.full_name}'"


def _class(type_: str) -> type[Block]:
    from prefectlite.block_types import find_class
    from prefectlite.parameter_options import stdout_to_stderr

    with stdout_to_stderr():
        return find_class(type_)


def _save_infrastructure(
    type_: str,
    name: str,
    texts: Mapping[str, str],
    *,
    overwrite: bool,
    base: Infrastructure | None = None,
) -> None:
    from prefectlite.infrastructure import load_infrastructure
    from prefectlite.overrides import checked_infrastructure, override_from_text

    fields = {key: override_from_text(key, text) for key, text in texts.items()}
    checked = checked_infrastructure({"type": type_, **fields}, base=base)
    load_infrastructure(checked).save(name, overwrite)


def _made(class_: type[Block], fields: Mapping[str, object]) -> Block:
    """Return the block that has these fields.

    Raises:
        UsageError: They do not fit the class.
    """
    from pydantic import ValidationError

    from prefectlite.block_faults import faults_of, list_in
    from prefectlite.block_fields import outlines

    key = None
    try:
        # Not strictly: what is given as text, or is on record as text, is to become a date.
        return class_.model_validate({**fields}, strict=False)
    except ValidationError as error:
        told = "; ".join(faults_of(error, class_))
        key = list_in(error)
    except Exception as error:  # noqa: BLE001 - of a validator of the user's; its text may show a secret
        told = f"{type(error).__name__} in a validator"
    slug = class_.get_block_type_slug()
    hint = f"its fields are {outlines(class_)}"
    if key is not None:
        hint = f"a list is written as JSON: {key}=" + """'["...", "..."]'"""
    raise UsageError(f"this {slug} is not valid: {told}", hint=hint)


def _warn(class_: type[Block], given: Mapping[str, str]) -> None:
    """Say which secrets were given where others can see them."""
    from prefectlite.block_fields import is_secret

    keys = [key for key in given if is_secret(class_, key)]
    if keys:
        console.say(
            f"warning: {', '.join(map(console.escaped, keys))} came as an argument, which ps shows to"
            " others and the shell's history keeps\n"
            f"hint: better: --stdin {keys[0]}, or --from-env {keys[0]}=VARIABLE"
        )


def _readable(value: Any) -> object:  # noqa: ANN401 - JSON, with bytes in it
    if isinstance(value, dict):
        return {key: _readable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_readable(one) for one in value]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _show_saved(what: str, type_: str, name: str, *, as_json: bool) -> None:
    document = writable_registry().blocks.find_block(type_, name)
    _tell(what, document)
    if as_json:
        console.out_json(document.dict())


def _tell(what: str, document: BlockDocument) -> None:
    console.say(f"{what} block '{console.escaped(document.full_name)}' ({document.id})")


COMMANDS = (ls, inspect, create, set, delete, register, "type")
