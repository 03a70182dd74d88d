"""How records are listed: the options, columns, orders and forms that every ``ls`` has in common.

``cli`` only. A kind of record is declared as a ``RecordTable``, and an ``ls`` finds records and shows
them as its ``Listing`` says. Nothing here reads the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from math import inf
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

from prefectlite import console
from prefectlite.commands import Option
from prefectlite.errors import UsageError
from prefectlite.names import near_hint
from prefectlite.records import iso_text
from prefectlite.run_filters import DEFAULT_LIMIT, Order

T = TypeVar("T")


class Column(NamedTuple, Generic[T]):
    """One column of a listing.

    Attributes:
        name: What ``--columns`` and ``--sort`` call it; its title is the same in capitals.
        value: Returns what it says of a record: None, a text, a number, a time, a list of texts or
            a dict of what JSON holds. A ``float`` is a duration in seconds.
        text: Returns how it is shown in a table; None for the usual way.
        is_default: Whether it is shown where no columns are named.
        is_cut: Whether it is cut where a terminal is too narrow.
        is_id: Whether it is an id, of which a terminal shows the first characters.
    """

    name: str
    value: Callable[[T], object]
    text: Callable[[T], str] | None = None
    is_default: bool = True
    is_cut: bool = False
    is_id: bool = False

    @property
    def title(self) -> str:
        """What stands above it."""
        return self.name.upper().replace("-", " ")


class RecordTable(NamedTuple, Generic[T]):
    """How records of one kind are listed.

    Attributes:
        columns: In the order of a table.
        keep: The names of those that a narrow terminal leaves out last, the most important first.
        document: Returns a record as JSON can hold it.
        reference: Returns what a command takes it by: its id, or its name.
    """

    columns: Sequence[Column[T]]
    keep: Sequence[str]
    document: Callable[[T], Mapping[str, object]]
    reference: Callable[[T], str]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Listing:
    """The options of every ``ls``: which of the records are shown, in which order and form."""

    form: Annotated[
        Literal["table", "json", "jsonl", "csv"] | None,
        Option("--format", description="The form to print; a table if not given."),
    ] = None
    as_json: Annotated[
        bool, Option("--json", description="Print a JSON list, as --format json does.")
    ] = False
    columns: Annotated[
        str | None,
        Option(
            "--columns",
            description="The columns, in this order; +NAME adds one to the usual. JSON has whole"
            " records if none are named.",
            metavar="NAME,...",
            complete="column",
        ),
    ] = None
    sort: Annotated[
        str | None,
        Option(
            "--sort",
            description="The column to sort by; with a - before it the greatest comes first.",
            metavar="[-]NAME",
            complete="sort-column",
        ),
    ] = None
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            "-n",
            description=f"At most this many; of runs {DEFAULT_LIMIT} if not given.",
            metavar="N",
            minimum=1,
        ),
    ] = None
    quiet: Annotated[
        bool,
        Option(
            "--quiet",
            "-q",
            description="Print only what other commands take, one a line: ids, or names.",
        ),
    ] = False

    def order(self, names: Sequence[str]) -> Order | None:
        """Return what to sort by; None where nothing was said.

        Raises:
            UsageError: It is none of these columns.
        """
        if self.sort is None:
            return None
        name = self.sort.removeprefix("-").lower()
        return Order(_known(name, names, option="--sort"), self.sort.startswith("-"))

    def columns_of(self, table: RecordTable[T]) -> list[Column[T]]:
        """Return the columns that were asked for, or the usual ones.

        Raises:
            UsageError: One is not there.
        """
        usual = [column.name for column in table.columns if column.is_default]
        if self.columns is None:
            wanted = usual
        else:
            given = [name.strip().lower() for name in self.columns.split(",")]
            wanted = usual if any(name.startswith("+") for name in given) else []
            wanted = wanted + [name.removeprefix("+") for name in given]
        by_name = {column.name: column for column in table.columns}
        names = dict.fromkeys(_known(name, [*by_name], option="--columns") for name in wanted)
        return [by_name[name] for name in names]

    def actual_form(self) -> str:
        """Return the form to print.

        Raises:
            UsageError: The options contradict each other.
        """
        if self.as_json and self.form not in {None, "json"}:
            raise UsageError(f"--json and --format {self.form} cannot be given together")
        if self.quiet and (self.as_json or self.form or self.columns):
            other = "--json" if self.as_json else "--format" if self.form else "--columns"
            raise UsageError(f"--quiet and {other} cannot be given together")
        if self.quiet:
            return "quiet"
        return "json" if self.as_json else self.form or "table"


def show(records: Sequence[T], table: RecordTable[T], listing: Listing) -> None:
    """Print records in the form that was asked for.

    Raises:
        UsageError: The options are wrong.
    """
    columns = listing.columns_of(table)
    form = listing.actual_form()
    if form == "quiet":
        for record in records:
            console.out(console.escaped(table.reference(record)))
    elif form == "csv":
        rows = ([_csv(column.value(record)) for column in columns] for record in records)
        console.out_csv(chain([[column.name for column in columns]], rows))
    elif form == "table":
        show_table(records, table, columns, keep=table.keep if listing.columns is None else ())
    else:
        documents = (
            dict(table.document(record))
            if listing.columns is None
            else {column.name: _json(column.value(record)) for column in columns}
            for record in records
        )
        if form == "jsonl":
            for document in documents:
                console.out_json_line(document)
        else:
            console.out_json_list(documents)


def show_table(
    records: Sequence[T],
    table: RecordTable[T],
    columns: Sequence[Column[T]] | None = None,
    *,
    keep: Sequence[str] | None = None,
) -> None:
    """Print a table of records.

    Args:
        columns: Those that it has; None for the usual ones.
        keep: The names of those that a narrow terminal leaves out last; None for the usual ones, and
            with none of them these are left out from the right.
    """
    if columns is None:
        columns = Listing().columns_of(table)
    kept = table.keep if keep is None else keep
    console.out_table(
        [column.title for column in columns],
        [*zip(*(_texts(column, records) for column in columns), strict=True)],
        cut=[column.title for column in columns if column.is_cut],
        keep=[column.title for name in kept for column in columns if column.name == name]
        or [column.title for column in columns],
    )


def show_all(records: Sequence[T], table: RecordTable[T], listing: Listing) -> None:
    """Print all records of a kind of which there are few: they are sorted and limited here.

    Raises:
        UsageError: The options are wrong.
    """
    order = listing.order([column.name for column in table.columns])
    if order is not None:
        (value,) = (column.value for column in table.columns if column.name == order.by)
        with_value = [record for record in records if value(record) is not None]
        without = [record for record in records if value(record) is None]
        with_value.sort(key=lambda record: _sort_key(value(record)), reverse=order.is_descending)
        records = with_value + without
    show(records[: listing.limit], table, listing)


def first(find: Callable[[int], list[T]], limit: int | None) -> tuple[list[T], bool]:
    """Return what a listing finds, and whether it was cut because no limit was named.

    Args:
        find: Returns the first ones, at most so many.
        limit: What was asked for.
    """
    found = find(limit or DEFAULT_LIMIT + 1)
    is_cut = not limit and len(found) > DEFAULT_LIMIT
    return (found[:-1] if is_cut else found), is_cut


def note_cut() -> None:
    """Say that a listing was cut, and how to see more."""
    console.note(f"these are the first {DEFAULT_LIMIT}; --limit N shows more")


def _sort_key(value: object) -> tuple[float, str]:
    """Return what to sort a value by: the values of settings, for one, are of more than one type."""
    if isinstance(value, datetime):
        return value.timestamp(), ""
    if isinstance(value, int | float):
        return value, ""
    return inf, ", ".join(value) if isinstance(value, tuple) else _text(value)


def _known(name: str, names: Sequence[str], *, option: str) -> str:
    if name in names:
        return name
    near = near_hint(name, names)
    there_are = f"there are: {', '.join(names)}"
    raise UsageError(
        f"{option}: there is no column {name!r} to {'sort by' if option == '--sort' else 'show'}",
        hint=f"{near} {there_are}" if near else there_are,
    )


def _texts(column: Column[T], records: Sequence[T]) -> Sequence[str]:
    """Return the cells of a column of a table."""
    if column.is_id:
        return console.id_texts([_text(column.value(record)) for record in records])
    if column.text is not None:
        return [column.text(record) for record in records]
    return [_text(column.value(record)) for record in records]


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float):
        return console.seconds_text(value)
    if isinstance(value, datetime):
        return console.moment_text(value)
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, int):
        return str(value)
    return console.json_text(value) if value else ""


def _json(value: object) -> object:
    return iso_text(value) if isinstance(value, datetime) else value


def _csv(value: object) -> object:
    value = _json(value)
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):  # seconds: sort(1) and bc(1) know no 8e-05
        return f"{value:.6f}"
    return console.json_text(value) if isinstance(value, dict | bool) else value
