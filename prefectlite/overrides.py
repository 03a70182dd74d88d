"""What a deployment says about the infrastructure of its runs, as people write it.

``deployments`` checks with it before anything is kept. What a field means is the affair of the
infrastructure that has it; nothing here starts one.
"""

from __future__ import annotations

from collections.abc import Mapping

from prefectlite.infrastructure import DEFAULT_TYPE, load_infrastructure
from prefectlite.json_values import json_or_text

#: What Prefect 2.8 calls some fields.
_ALIASES = {"env": "environment", "working_dir": "working_directory"}


def checked_infrastructure(given: Mapping[str, object]) -> dict[str, object]:
    """Return the infrastructure of a deployment, with its ``type``, which is ``process`` if not given.

    A dotted key sets one entry of a table: ``environment.DEBUG``, as in Prefect 2.8. None is as if it
    had not been given.

    Raises:
        UsageError: A key is unknown, or a value is not what it must be. ``SettingError`` where there
            is no such type.
    """
    fields: dict[str, object] = {"type": DEFAULT_TYPE}
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
    return load_infrastructure(fields).fields()


def override_from_text(key: str, text: str) -> object:
    """Return the value that a person means by ``--override KEY=TEXT``.

    An entry of the environment keeps its text; any other text is a value if it is JSON.
    """
    name, _, entry = key.partition(".")
    is_variable = entry and _ALIASES.get(name, name) == "environment"
    return text if is_variable else json_or_text(text)
