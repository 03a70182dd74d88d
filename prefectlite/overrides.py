"""What a deployment says about the infrastructure of its runs, as people write it.

``deployments`` checks with it before anything is kept. What a field means is the affair of the
infrastructure that has it; nothing here starts one.
"""

from __future__ import annotations

from collections.abc import Mapping

from prefectlite.block_documents import reference_parts
from prefectlite.block_types import load_infrastructure_block
from prefectlite.errors import UsageError
from prefectlite.infrastructure import DEFAULT_TYPE, Infrastructure, load_infrastructure
from prefectlite.json_values import json_or_text

#: The key of the block that an infrastructure takes after.
BLOCK = "block"
#: What Prefect 2.8 calls some fields.
_ALIASES = {"env": "environment", "working_dir": "working_directory"}


def checked_infrastructure(
    given: Mapping[str, object], *, base: Infrastructure | str | None = None
) -> dict[str, object]:
    """Return the infrastructure of a deployment, with its ``type``, which is ``process`` if not given.

    Where it takes after a block, it has that as ``block`` instead, beside what differs from it. The
    block need not be on record yet.

    Args:
        given: What a person gave. A dotted key sets one entry of a table: ``environment.DEBUG``, as in
            Prefect 2.8. None is as if it had not been given. What is here counts more than ``base``.
        base: What it takes after: a block as ``type/name``, or an infrastructure.

    Raises:
        UsageError: A key is unknown, or a value is not what it must be. ``SettingError`` where there
            is no such type.
    """
    overrides = named_fields(given)
    block = overrides.pop(BLOCK, base)
    if isinstance(block, Infrastructure):
        return load_infrastructure(_merged(block.fields(), overrides)).fields()
    if block is None:
        return load_infrastructure({"type": DEFAULT_TYPE, **overrides}).fields()
    if not isinstance(block, str):
        raise UsageError(
            f"infrastructure: {type(block).__name__!r} is neither a block, such as 'process/big-box',"
            " nor an infrastructure"
        )
    type_, _ = reference_parts(block)
    if overrides.setdefault("type", type_) != type_:
        raise UsageError(f"infrastructure: the block {block!r} is not of another type")
    checked = load_infrastructure(overrides).fields()
    # Also what is as it would be anyway: the block may have something else.
    return {BLOCK: block} | {
        name: checked.get(name, value) for name, value in overrides.items() if name != "type"
    }


def resolved_infrastructure(infrastructure: Mapping[str, object]) -> dict[str, object]:
    """Return an infrastructure of ``checked_infrastructure`` with the fields of its block in it.

    What differs from the block counts more; of tables, each entry.

    Raises:
        NotFoundError: There is no such block.
        BlockNotLoadedError: Its fields are not what they must be, or its secrets are gone.
    """
    overrides = {**infrastructure}
    block = overrides.pop(BLOCK, None)
    if block is None:
        return overrides
    found: Infrastructure = load_infrastructure_block(*reference_parts(str(block)))
    return load_infrastructure(_merged(found.fields(), overrides)).fields()


def named_fields(given: Mapping[str, object]) -> dict[str, object]:
    """Return fields by their own names, tables whole, from what a person gave; None is left out."""
    fields: dict[str, object] = {}
    for key, value in given.items():
        name, _, entry = key.partition(".")
        name = _ALIASES.get(name, name)
        if value is None:
            continue
        table = fields.get(name)
        if not entry:
            fields[name] = value
        elif isinstance(table, Mapping):
            fields[name] = {**table, entry: value}
        else:
            fields[name] = {entry: value}
    return fields


def _merged(base: Mapping[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    merged = {**base}
    for name, value in overrides.items():
        below = merged.get(name)
        is_table = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[name] = {**below, **value} if is_table else value  # type: ignore[dict-item] # both are
    return merged


def override_from_text(key: str, text: str) -> object:
    """Return the value that a person means by ``--override KEY=TEXT``.

    An entry of the environment keeps its text; any other text is a value if it is JSON.
    """
    name, _, entry = key.partition(".")
    is_variable = entry and _ALIASES.get(name, name) == "environment"
    return text if is_variable else json_or_text(text)
