"""Blocks: typed configuration that is kept under a name, its secrets apart from the rest.

Users subclass ``Block``; each other file of this package holds types that come with prefectlite. A block
that is saved is a row of the registry without its secrets, and a file with them. No message from here
shows a value that was given, since it may be a secret.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from prefectlite import block_types
from prefectlite.block_documents import (
    check_block_name,
    delete_document,
    find_document,
    reference_parts,
    save_document,
)
from prefectlite.block_faults import faults_of
from prefectlite.block_records import BlockDocument, NestedBlock, place_text
from prefectlite.block_values import Tree, tree_of, values_of
from prefectlite.errors import (
    BlockNotLoadedError,
    ConflictError,
    EntrypointError,
    NotFoundError,
    UsageError,
)
from prefectlite.names import is_slug, kebab_case, new_id


class BlockId(str):
    """The id of a block; ``await`` gives the id, as programs for Prefect 2.8 write it."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, Self]:
        yield from ()
        return self


class Block(BaseModel):
    """Configuration that is kept under a name: subclass it, with fields as pydantic has them.

    A field that is a secret (``SecretStr``, ``SecretBytes``, ``pydantic.Secret``) is kept in a file of its
    owner's alone, and shown nowhere. A field that is a block is kept as a reference, if that block
    is on record, and else with the rest. The methods are quick: a coroutine calls them as they are, and
    may await what ``load`` and ``save`` return, as programs for Prefect 2.8 do.

    Attributes:
        _block_type_slug: The name of the type; if not given, the class's in kebab-case.
    """

    # Errors must not show what was given. A name that is mistyped, or that only an older class had,
    # is an error; and what is assigned to a field that is a secret becomes one.
    model_config = ConfigDict(
        hide_input_in_errors=True, extra="forbid", validate_assignment=True, populate_by_name=True
    )

    _block_type_slug: ClassVar[str | None] = None
    _block_document_name: str | None = PrivateAttr(default=None)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Make the type known, so that its blocks can be loaded by ``type/name``."""
        if not cls.__pydantic_generic_metadata__["origin"]:
            block_types.known[cls.get_block_type_slug()] = cls

    @classmethod
    def get_block_type_slug(cls) -> str:
        """Return the name of the type.

        Raises:
            UsageError: It is not made of lower-case letters, digits and hyphens.
        """
        generic = cls.__pydantic_generic_metadata__["origin"]
        if generic is not None and issubclass(generic, Block):  # of Pair[int] it is that of Pair
            return generic.get_block_type_slug()
        # Its own: a subclass that says nothing would else take the place of its parent.
        slug: str = cls.__dict__.get("_block_type_slug") or kebab_case(cls.__name__)
        if not is_slug(slug):
            raise UsageError(
                f"{slug!r}, of the class {cls.__name__}, cannot be the name of a block type",
                hint="give it one of lower-case letters, digits and hyphens: _block_type_slug = ...",
            )
        return slug

    def __await__(self) -> Generator[None, None, Self]:
        yield from ()
        return self

    def save(self, name: str, overwrite: bool = False) -> BlockId:  # noqa: FBT001, FBT002 - Prefect 2.8's signature
        """Put the block on record under a name, durably, and return its id, which may be awaited.

        Safe to call from several processes at once: each time all of it is saved.

        Args:
            name: Lower-case letters, digits and hyphens; unique among the blocks of this type.
            overwrite: Replace the one that has the name.

        Raises:
            UsageError: It cannot be the name of a block, or a value cannot be kept.
            ConflictError: The name is taken, or a block in it is not as it is on record.
        """
        check_block_name(name)
        tree = tree_of(self, _identity)
        _check_again(type(self), tree)
        document = BlockDocument(
            id=new_id(),
            type=self.get_block_type_slug(),
            name=name,
            fields={},
            secrets=tree.secrets,
            blocks=tuple(nested for nested, _ in tree.blocks),
        )
        for nested, block in tree.blocks:
            _check_nested(nested, block, document.full_name)
        saved = save_document(document, tree.value, overwrite=overwrite)
        self._block_document_name = name
        return BlockId(saved.id)

    @classmethod
    def load(cls, name: str) -> Self:
        """Return the block that is on record under a name; it may be awaited, and gives itself.

        Args:
            name: Of ``Block`` itself ``type/name``, which gives a block of that type.

        Raises:
            NotFoundError: There is no such block, or no such type.
            BlockNotLoadedError: It does not fit its class, or its secrets are gone.
        """
        if cls is Block:
            block: Self = _load(*reference_parts(name), ())
            return block
        check_block_name(name)
        return _load_as(cls, name, ())

    @classmethod
    def delete(cls, name: str) -> None:
        """Delete the block that is on record under a name, with its secrets.

        Args:
            name: Of ``Block`` itself ``type/name``.

        Raises:
            NotFoundError: There is no such block.
        """
        if cls is Block:
            delete_document(*reference_parts(name))
        else:
            check_block_name(name)
            delete_document(cls.get_block_type_slug(), name)


B = TypeVar("B", bound=Block)


def load_fields(class_: type[Block], name: str) -> dict[str, object]:
    """Return what is on record of a block, to be validated: it need not fit its class.

    Raises:
        NotFoundError: There is no such block.
        BlockNotLoadedError: Its secrets are gone, or a block in it cannot be loaded.
    """
    return _load_fields(class_, name, ())


def _identity(value: object) -> tuple[str, str | None] | None:
    """Return the type of a block, and the name it is on record under; None for what is no block."""
    if not isinstance(value, Block):
        return None
    return value.get_block_type_slug(), value._block_document_name  # noqa: SLF001 - of this module


def _load(type_: str, name: str, above: tuple[str, ...]) -> Any:  # noqa: ANN401 - a Block, or infrastructure
    """Return the block of a type and name.

    Args:
        type_: Its type.
        name: Its name.
        above: The blocks that are being loaded and have it in them, the outermost first.
    """
    if block_types.is_infrastructure(type_):
        return block_types.load_infrastructure_block(type_, name)
    return _load_as(block_types.find_class(type_), name, above)


def _load_as(class_: type[B], name: str, above: tuple[str, ...]) -> B:
    fields = _load_fields(class_, name, above)
    block = _made(class_, fields, f"{class_.get_block_type_slug()}/{name}")
    block._block_document_name = name  # noqa: SLF001 - of this module
    return block


def _load_fields(class_: type[Block], name: str, above: tuple[str, ...]) -> dict[str, object]:
    document, fields = find_document(class_.get_block_type_slug(), name)
    inside = (*above, document.full_name)
    if document.full_name in above:
        raise BlockNotLoadedError(
            f"the block {document.full_name!r} contains itself: {' > '.join(inside)}",
            hint="save one of them again without the other, with overwrite",
        )

    def resolve(nested: NestedBlock, found: Any) -> object:  # noqa: ANN401 - JSON
        try:
            if nested.name is not None:
                return _load(nested.type, nested.name, inside)
            return _made(block_types.find_class(nested.type), found, document.full_name)
        except (NotFoundError, EntrypointError) as error:
            raise BlockNotLoadedError(
                f"the block {document.full_name!r} has another as {place_text(nested.place)!r},"
                f" and {error}",
                hint=f"save that again; or {document.full_name!r} with another, with overwrite",
            ) from error

    found: dict[str, object] = values_of(fields, document.secrets, document.blocks, resolve)
    return found


def _made(class_: type[B], values: Mapping[str, object], full_name: str) -> B:
    """Return the block of values that are, or could be, on record.

    Raises:
        BlockNotLoadedError: They do not fit the class.
    """
    try:
        # Not strictly, even where the class is strict: what JSON holds as text is to become a date.
        return class_.model_validate({**values}, strict=False)
    except ValidationError as error:
        told = "; ".join(faults_of(error, class_))
    except Exception as error:  # noqa: BLE001 - of a validator of the user's; its text may show a secret
        told = f"{type(error).__name__} in a validator"
    raise _unfit(full_name, class_.__qualname__, told)


def _unfit(full_name: str, class_name: str, told: str) -> BlockNotLoadedError:
    return BlockNotLoadedError(
        f"the block {full_name!r} does not fit its class {class_name}: {told}",
        hint="was it saved by an older or newer class? save it again, with overwrite; see:"
        f" prefectlite block inspect {full_name}",
    )


def _check_again(class_: type[Block], tree: Tree) -> None:
    """Refuse what would not come back as it is.

    Raises:
        UsageError: A field is not what its type says, or validators change what they have made.
    """
    originals = {nested.place: block for nested, block in tree.blocks}

    def resolve(nested: NestedBlock, found: Any) -> object:  # noqa: ANN401 - JSON
        original: Any = originals[nested.place]
        return original if nested.name else _made(type(original), found, nested.type)

    slug = class_.get_block_type_slug()
    places = [nested for nested, _ in tree.blocks]
    try:
        values = values_of(tree.value, tree.secrets, places, resolve)
        again = tree_of(_made(class_, values, slug), _identity)
    except BlockNotLoadedError as error:
        raise UsageError(f"it could not be loaded again: {error}") from None
    names = [name for name in tree.value if not tree.shares(name, again)]
    if names:
        raise UsageError(
            f"this {slug} would not come back as it is: {', '.join(names)}",
            hint="is each what its annotation says, and does no validator change what it has made?",
        )


def _check_nested(nested: NestedBlock, block: object, outermost: str) -> None:
    """Refuse a reference to a block that is not as it is on record, or that has the outermost in it.

    Raises:
        NotFoundError: It is not on record any more.
        ConflictError: It is another, or it contains the outermost.
    """
    if nested.name is None:
        return
    document, fields = find_document(nested.type, nested.name)
    on_record = Tree(fields, document.secrets, tuple((one, None) for one in document.blocks))
    if on_record.text() != tree_of(block, _identity).text():
        raise ConflictError(
            f"the block at {place_text(nested.place)!r} is not as {document.full_name!r} is on record",
            hint="save it first, or load it again",
        )
    _check_no_way(document, outermost, (outermost,))


def _check_no_way(document: BlockDocument, outermost: str, way: tuple[str, ...]) -> None:
    way = (*way, document.full_name)
    if document.full_name == outermost:
        raise ConflictError(
            f"the block {outermost!r} would contain itself: {' > '.join(way)}",
            hint="save one of them without the other",
        )
    for nested in document.blocks:
        if nested.name is not None and f"{nested.type}/{nested.name}" not in way[1:]:
            _check_no_way(find_document(nested.type, nested.name)[0], outermost, way)
