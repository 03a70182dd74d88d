"""See which types of blocks there are, and what fields they have.

``prefectlite block type``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

from prefectlite import console
from prefectlite.commands import Argument
from prefectlite.listings import JsonOption
from prefectlite.record_tables import Column, Listing, RecordTable, show_all

if TYPE_CHECKING:
    from prefectlite.block_types import TypeOutline

_TYPES: RecordTable[TypeOutline] = RecordTable(
    columns=(
        Column("type", attrgetter("type")),
        Column("source", attrgetter("source")),
        Column("defined-in", attrgetter("entrypoint"), is_cut=True),
    ),
    keep=("type",),
    document=lambda one: one.dict(),
    reference=attrgetter("type"),
)


def ls(listing: Listing) -> None:
    """List the types of blocks: those that come with prefectlite or another package, and your own.

    Columns: type, source, defined-in.

    Examples:
        prefectlite block type ls
        prefectlite block type ls --json
    """
    from prefectlite.block_types import list_types

    show_all(list_types(), _TYPES, listing)


def inspect(
    type_: Annotated[str, Argument("The type.", metavar="TYPE", complete="block-type")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the fields of a type of blocks: what each is and does, its default, and which are secret.

    Examples:
        prefectlite block type inspect secret
        prefectlite block type inspect process --json
    """
    from prefectlite.block_fields import fields_of, fields_of_infrastructure
    from prefectlite.block_types import find_class, is_infrastructure
    from prefectlite.parameter_options import stdout_to_stderr

    class_: type
    if is_infrastructure(type_):
        class_, fields = fields_of_infrastructure(type_)
    else:
        with stdout_to_stderr():
            class_ = find_class(type_)
        fields = fields_of(class_)
    description = (class_.__doc__ or "").strip().partition("\n")[0]
    if as_json:
        document = {"type": type_, "class": f"{class_.__module__}.{class_.__qualname__}"}
        listed = [field.dict() for field in fields]
        console.out_json({**document, "description": description, "fields": listed})
        return
    if description:
        console.say(console.escaped(description))
    console.out_table(
        ["FIELD", "TYPE", "DEFAULT", "SECRET"],
        [
            [
                field.name,
                field.type,
                "required" if field.is_required else console.json_text(field.default),
                "yes" if field.is_secret else "",
            ]
            for field in fields
        ],
        cut=["TYPE", "DEFAULT"],
    )
    descriptions = {field.name: field.description for field in fields if field.description}
    if descriptions:
        console.out()
        console.out_fields(descriptions)


COMMANDS = (ls, inspect)
