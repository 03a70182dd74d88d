"""Show the versions that matter to a bug report: ``prefectlite version``.

It opens no registry, so that it works where the registry does not.
"""

from __future__ import annotations

import platform
import sqlite3  # noqa: TID251 - for its version alone
from typing import Annotated

from prefectlite import __version__, console
from prefectlite.commands import Option
from prefectlite.plugins import load
from prefectlite.settings import PREFECTLITE_REGISTRY


def version(
    *,
    as_json: Annotated[bool, Option("--json", description="Print one JSON object.")] = False,
) -> None:
    """Show versions, and where the registry is.

    Examples:
        prefectlite version
        prefectlite version --json
    """
    url = PREFECTLITE_REGISTRY.value()
    versions = {
        "prefectlite": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "registry": PREFECTLITE_REGISTRY.masked(url),
        "schema": load("registry", url.partition(":")[0]).SCHEMA_VERSION,
    }
    if as_json:
        console.out_json(versions)
    else:
        console.out_fields({name: str(value) for name, value in versions.items()})


COMMANDS = (version,)
