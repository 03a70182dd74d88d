"""What the registry holds of blocks, as frozen values; see ``records``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prefectlite.clock import now
from prefectlite.records import iso_text

#: Where something stands in the fields of a block: keys of tables and indexes of lists, from the top.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """That there is a secret; never what it is.

    Attributes:
        place: Where.
        kind: The name of pydantic's class that it is of, so that it becomes one again; empty for
            another.
    """

    place: Place
    kind: str = ""


@dataclass(frozen=True, slots=True)
class NestedBlock:
    """A block that stands in another.

    Attributes:
        place: Where.
        type: Its type.
        name: What it is on record as, and looked up by; None for one that is not, and whose fields
            stand where it stands.
    """

    place: Place
    type: str
    name: str | None = None

    def dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {"field": place_text(self.place), "type": self.type, "name": self.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDocument:
    """Configuration of a type, by a name that is unique among that type's.

    Attributes:
        fields: As JSON holds them. ``MASK`` stands for each secret, and ``type/name`` for each block
            that is looked up.
        secrets: Where secrets stand.
        blocks: Where blocks stand, an outer one before those in it.
        secrets_file: The name of the file that has the secrets, in the order of ``secrets``; None
            where there are none.
    """

    id: str
    type: str
    name: str
    fields: Mapping[str, object]
    secrets: tuple[SecretPlace, ...] = ()
    blocks: tuple[NestedBlock, ...] = ()
    secrets_file: str | None = None
    created_at: datetime = field(default_factory=now)
    updated_at: datetime = field(default_factory=now)

    @property
    def full_name(self) -> str:
        """Its type and name, ``slack-webhook/default``: unique in a registry."""
        return f"{self.type}/{self.name}"

    def dict(self) -> dict[str, object]:
        """Return the document as JSON can hold it, secrets hidden; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "type": self.type,
            "name": self.name,
            "fields": {**self.fields},
            "secrets": [place_text(secret.place) for secret in self.secrets],
            "blocks": [nested.dict() for nested in self.blocks],
            "created_at": iso_text(self.created_at),
            "updated_at": iso_text(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class BlockType:
    """A type of blocks that a person has registered.

    Attributes:
        type: Its name.
        entrypoint: The module, or the file by its absolute path, that defines its class.
    """

    type: str
    entrypoint: str
    registered_at: datetime = field(default_factory=now)

    def dict(self) -> dict[str, object]:
        """Return the type as JSON can hold it."""
        return {
            "type": self.type,
            "entrypoint": self.entrypoint,
            "registered_at": iso_text(self.registered_at),
        }


def place_text(place: Place) -> str:
    """Return where something stands as a person writes it: ``servers.0.password``."""
    return ".".join(str(step) for step in place)
