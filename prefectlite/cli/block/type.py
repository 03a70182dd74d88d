"""See which types of blocks there are, and what fields they have.

``prefectlite block type``.
"""

from __future__ import annotations

from typing import Annotated

from prefectlite import console
from prefectlite.commands import Argument
from prefectlite.listings import JsonListOption, JsonOption


def ls(*, as_json: JsonListOption = False) -> None:
    """List the types of blocks: those that come with prefectlite or another package, and your own.

    Examples:
        prefectlite block type ls
        prefectlite block type ls --json
    """
    from prefectlite.block_types import list_types

    types = list_types()
    if as_json:
        console.out_json([one.dict() for one in types])
        return
    console.out_table(
        ["TYPE", "SOURCE", "DEFINED IN"],
        [[one.type, one.source, one.entrypoint] for one in types],
        cut=["DEFINED IN"],
    )


def inspect(
    type_: Annotated[str, Argument("The type.", metavar="TYPE")], *, as_json: JsonOption = False
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
