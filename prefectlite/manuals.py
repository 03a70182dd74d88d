"""The man pages, made of what the commands declare; ``--help`` is made of the same.

``python -m prefectlite.manuals FOLDER`` writes them to ``FOLDER/man1`` and so on, where ``man`` finds them
with ``FOLDER`` in its path. It is run when a command changes, and by who packages prefectlite; nothing
imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefectlite import __version__
from prefectlite.argument_reading import HELP
from prefectlite.cli import EXIT_CODES, options
from prefectlite.command_tree import every_command
from prefectlite.commands import Function, Group, Parameter, documentation, parameters
from prefectlite.json_documents import DOCUMENTS, records_of
from prefectlite.json_schemas import Field, Record
from prefectlite.manual_topics import TOPICS
from prefectlite.roff import ManPage, bold, italic, marked
from prefectlite.usage import HELP_TEXT, command_rows, described

# Of this version: a date that changed with every run would make every build another one.
_DATE = "2026-11-23"
_VOLUMES = {1: "User Commands", 5: "File Formats", 7: "Miscellaneous"}
_SECTIONS = {topic.name: topic.section for topic in TOPICS}
_PROGRAM = "prefectlite"
#: What a page of a command names at its end, beside that of the program.
_RELATED = {
    "agent": ("prefectlite-deployment", "prefectlite-work-queue"),
    "config": ("prefectlite-profile", "prefectlite-settings"),
    "deployment": ("prefectlite-agent", "prefectlite-work-queue", "prefectlite-deployment-file"),
    "flow-run": ("prefectlite-run", "prefectlite-task-run", "prefectlite-states"),
    "notification": ("prefectlite-block", "prefectlite-states"),
    "profile": ("prefectlite-config", "prefectlite-settings"),
    "run": ("prefectlite-flow-run", "prefectlite-states"),
    "task-run": ("prefectlite-flow-run", "prefectlite-states"),
    "work-queue": ("prefectlite-agent", "prefectlite-deployment"),
}
_HELP = f"{HELP_TEXT} Every command takes it, too."
_FILES = (
    ("registry.db", "The registry: every run, its states and log lines, and all else on record."),
    ("registry.lock", "Held by whoever is writing to the registry."),
    ("results/", "Stored results of tasks and flows; each is a pickle."),
    ("secrets/", "The secrets of blocks; only their owner can read them."),
    ("processes/, runs/", "What runs and their supervisors leave for each other while they go on."),
)

Commands = list[tuple[Sequence[str], Function]]


def pages() -> dict[str, str]:
    """Return the text of every page, by its place in a folder: ``man1/prefectlite.1``."""
    tree = every_command()
    written = [_program(tree)]
    written += [_command_page(word, found) for word, found in tree.items()]
    for topic in TOPICS:
        page = _new_page(topic.name, topic.section, topic.summary)
        topic.write(page)
        _write_related(page, topic.related)
        written.append(page)
    return {f"man{page.section}/{page.name}.{page.section}": page.text() for page in written}


def _new_page(name: str, section: int, summary: str) -> ManPage:
    return ManPage(
        name,
        section,
        summary=summary,
        source=f"{_PROGRAM} {__version__}",
        date=_DATE,
        volume=_VOLUMES[section],
    )


def _program(tree: Group) -> ManPage:
    page = _new_page(_PROGRAM, 1, _title(documentation(options).summary))
    leading = parameters(options)
    page.heading("Synopsis")
    page.synopsis(_PROGRAM, [*map(_part, leading), italic("COMMAND"), italic("...")])
    page.heading("Description")
    page.paragraphs(
        "Python functions that are marked as flows and tasks are run, and every run is kept on record in"
        " a file. It can be listed, followed, paused, resumed and cancelled from any other shell, and"
        " leaves an exit code that says how it ended. No server or daemon is needed.",
        "Data goes to stdout, and words go to stderr. Every command that shows something takes --json;"
        " its page says what that prints. A flow run is named by its id, the start of its id, or its"
        " name. Options may stand anywhere before --, but those of the program stand before the"
        " command.",
    )
    page.heading("Options")
    page.items([*map(_item, leading), (", ".join(map(bold, HELP)), _HELP)])
    page.heading("Commands")
    page.items((bold(f"{_PROGRAM}-{name}") + "(1)", text) for name, text in command_rows(tree))
    page.heading("Environment")
    page.paragraphs(
        "Settings are read from variables whose names begin with PREFECTLITE_, and NO_COLOR; see"
        " prefectlite-settings(5)."
    )
    page.heading("Files")
    page.paragraphs(
        "In PREFECTLITE_HOME, which is `~/.local/share/prefectlite` on Linux where nothing sets it:"
    )
    page.items((bold(name), text) for name, text in _FILES)
    page.heading("Exit status")
    page.items(((bold(code), _sentence(text)) for code, text in EXIT_CODES), width=6)
    page.heading("Examples")
    page.literal(
        [
            "prefectlite run my_flows.py:etl -p day=today",
            "prefectlite flow-run ls --state failed",
            "prefectlite flow-run logs gigantic-cockatoo",
        ]
    )
    _write_related(page, [*(f"{_PROGRAM}-{word}" for word, _ in tree.items()), *_SECTIONS])
    return page


def _command_page(word: str, found: Group | Function) -> ManPage:
    """Return the page of a group with all its commands, or of a command that is in none."""
    commands = [*_commands([word], found)]
    about = found.description if isinstance(found, Group) else documentation(found).summary
    page = _new_page(f"{_PROGRAM}-{word}", 1, _title(about))
    page.heading("Synopsis")
    for words, function in commands:
        page.synopsis(_named(words), _parts(function))
    page.heading("Description")
    if isinstance(found, Group):
        page.paragraphs(about)
        page.heading("Commands")
    for words, function in commands:
        if isinstance(found, Group):
            page.subheading(_named(words))
        text = documentation(function)
        page.paragraphs(text.summary, *text.prose)
        page.items(map(_item, parameters(function)))
    _write_documents(page, commands)
    page.heading("Exit status")
    page.paragraphs(
        "0 where it was done, and 2 for wrong usage; what the others mean is in prefectlite(1)."
    )
    _write_examples(page, commands)
    _write_related(page, _RELATED.get(word, ()))
    return page


def _commands(
    words: Sequence[str], found: Group | Function
) -> Iterator[tuple[Sequence[str], Function]]:
    if not isinstance(found, Group):
        yield words, found
        return
    for word, inner in found.items():
        yield from _commands([*words, word], inner)


def _write_documents(page: ManPage, commands: Commands) -> None:
    """Write what commands print as JSON: which records, and then the fields of each."""
    lines = [" ".join(words) for words, _ in commands]
    printed = {
        words: document
        for line in lines
        for words, document in DOCUMENTS.items()
        if words.partition(" --")[0] == line
    }
    if not printed:
        return
    page.heading("JSON output")
    about = "This is what --json prints: one document, or one a line. A time is a string in ISO 8601, in UTC."
    if any("--columns" in one.names for _, function in commands for one in parameters(function)):
        about += " With --columns each object has the columns that it names instead."
    page.paragraphs(about)
    page.items(
        (bold(words), f"{document.shape}: {document.record.title}.")
        for words, document in printed.items()
    )
    for record in records_of(printed.values()):
        page.subheading(f"{record.title[0].upper()}{record.title[1:]}")
        if record.base is not None:
            page.paragraphs(f"All that a {record.base.title} has, and:")
        page.items(
            (f"{bold(name)} ({marked(_kind_text(field))})", field.meaning)
            for name, field in record.own_fields.items()
        )


def _kind_text(field: Field) -> str:
    kind = field.kind.title if isinstance(field.kind, Record) else field.kind.value
    text = f"list, each: {kind}" if field.is_list else kind
    return f"{text}, or null" if field.is_nullable else text


def _write_examples(page: ManPage, commands: Commands) -> None:
    page.heading("Examples")
    for _, function in commands:
        text = documentation(function)
        page.paragraphs(_example_title(text.summary))
        page.literal(text.examples)


def _example_title(summary: str) -> str:
    return f"{summary.partition('. ')[0].rstrip('.')}:"


def _write_related(page: ManPage, related: Sequence[str]) -> None:
    page.heading("See also")
    names = sorted({_PROGRAM, *related} - {page.name}, key=lambda name: (_section(name), name))
    page.paragraphs(", ".join(f"{name}({_section(name)})" for name in names))


def _section(name: str) -> int:
    return _SECTIONS.get(name, 1)


def _named(words: Sequence[str]) -> str:
    return " ".join([_PROGRAM, *words])


def _title(text: str) -> str:
    """Return a sentence as the line of a page's name has it."""
    sentence = text.partition(". ")[0].rstrip(".")
    return f"{sentence[0].lower()}{sentence[1:]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _parts(function: Function) -> list[str]:
    """Return the parts of a synopsis: options first, then what is given by its place."""
    declared = parameters(function)
    return [_part(one) for one in declared if one.names] + [
        _part(one) for one in declared if not one.names
    ]


def _part(parameter: Parameter) -> str:
    if parameter.names:
        short = [name for name in parameter.names if not name.startswith("--")]
        text = bold((short or list(parameter.names))[0])
        if not parameter.is_flag:
            text += f" {_value_text(parameter)}"
    else:
        text = _value_text(parameter)
    dots = "..." if parameter.is_list else ""
    return text + dots if parameter.is_required else f"[{text}]{dots}"


def _item(parameter: Parameter) -> tuple[str, str]:
    if not parameter.names:
        return _value_text(parameter), described(parameter)
    short = [name for name in parameter.names if not name.startswith("--")]
    long = [name for name in parameter.names if name.startswith("--")]
    names = ", ".join(map(bold, [*short, *long]))
    if parameter.is_flag:
        return names, described(parameter)
    return f"{names} {_value_text(parameter)}", described(parameter)


def _value_text(parameter: Parameter) -> str:
    """Return what stands for a value: words to type in bold, and what stands for others in italics."""
    return (
        "|".join(map(bold, parameter.choices)) if parameter.choices else italic(parameter.metavar)
    )


def main(folder: Path) -> None:
    """Write every page into a folder, and take away those of commands that are no more."""
    texts = pages()
    for place, text in texts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    for path in folder.glob(f"man?/{_PROGRAM}*"):
        if str(path.relative_to(folder)) not in texts:
            path.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - its own name and the folder
        sys.exit("usage: python -m prefectlite.manuals FOLDER")
    main(Path(sys.argv[1]))
