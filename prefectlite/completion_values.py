"""What a shell offers for an argument, by the names that ``complete=`` of a declaration uses.

``completion`` only. One table, ``_KINDS``, says which function finds what. These may raise whatever they
like, which is as if they had found nothing, but must never write, wait, or import a person's code.
What comes from the registry is a person's text: what nobody could type is not offered, and what is said
beside a word is escaped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefectlite.clock import duration_text
from prefectlite.console import escaped
from prefectlite.setting_sources import (
    DEFAULT_PROFILE,
    Reach,
    Setting,
    own_profile,
    read_profiles,
    settings_to_show,
)
from prefectlite.settings import PREFECTLITE_REGISTRY
from prefectlite.suggestions import Run, Suggestions, Which, open_suggestions

if TYPE_CHECKING:
    from prefectlite.flow_outlines import FlowOutline

_HEXADECIMAL = frozenset("0123456789abcdef-")
# So many files of a folder are looked into, for the flows that they have; of more, names are offered.
_MOST_FILES = 20
_PYTHON = ".py"
_BLOCK_LINE = re.compile(
    r"""^class ([A-Z]\w*)(?<!Block)\(\w*Block\)|^    _block_type_slug\b.* = "(.+)\"""",
    re.MULTILINE | re.ASCII,
)


class Offer(NamedTuple):
    """A word that may stand at the cursor, and what it is."""

    value: str
    description: str = ""

    def after(self, head: str) -> Offer:
        """Return it with something before the word: ``--state=``."""
        return Offer(head + self.value, self.description)


class Typed(NamedTuple):
    """What stands on the line.

    Attributes:
        text: The part of the value that stands before the cursor.
        placed: The arguments before it that are given by their places.
        given: The texts of the options that are given, by the names of their parameters.
        command: The words that name the command.
        function: The command.
    """

    text: str
    placed: Sequence[str]
    given: Mapping[str, Sequence[str]]
    command: str
    function: Callable[..., object]


def offers_of(kind: str, typed: Typed) -> list[Offer] | None:
    """Return what is offered for an argument; None where the shell is to offer files.

    Args:
        kind: A name of ``_KINDS``.
        typed: What stands on the line.
    """
    try:
        found = _KINDS[kind](typed)
        if found is None:
            return None
        return [
            Offer(one.value, escaped(one.description))
            for one in dict.fromkeys(found)
            if one.value.isprintable() and one.value
        ]
    except Exception:  # noqa: BLE001 - a broken profile, say: a prompt is no place to complain
        return []


def _on_record() -> Suggestions:
    return open_suggestions(PREFECTLITE_REGISTRY.value())


def _flow_runs(typed: Typed) -> Iterator[Offer]:
    which: Sequence[Which] = (Which.ALL,)
    if typed.command != "flow-run logs" or "follow" in typed.given:
        which = _FLOW_RUNS_OF.get(typed.command, which)
    return _runs(_on_record().flow_runs(typed.text, which), typed.text)


def _task_runs(typed: Typed) -> Iterator[Offer]:
    return _runs(_on_record().task_runs(typed.text), typed.text)


def _runs(runs: Iterable[Run], text: str) -> Iterator[Offer]:
    """Yield runs by their names, and by their ids where the name would not do or an id is begun."""
    for run in runs:
        age = duration_text(max(time.time() - run.created_at / 1_000_000, 0))
        told = f"{run.state}, {run.of}, {age} ago"
        # What looks like the start of an id is taken for one, too; and no line is several.
        is_usable = run.is_unique and run.name.isprintable() and run.name[:1] not in {"", "-"}
        if run.name.startswith(text) and is_usable and not _HEXADECIMAL.issuperset(run.name):
            yield Offer(run.name, told)
            if not text:
                continue
        if run.id.startswith(text.lower()):
            yield Offer(run.id, told if run.name in told else f"{run.name}, {told}")


def _run_inputs(typed: Typed) -> Iterator[Offer]:
    import json

    for reference in typed.placed:
        for schema in _on_record().input_schemas(reference):
            for name, field in json.loads(schema).get("properties", {}).items():
                yield Offer(f"{name}=", str(field.get("type") or field.get("title") or ""))


def _flows(_: Typed) -> Iterator[Offer]:
    return map(Offer, _on_record().flow_names())


def _tags(_: Typed) -> Iterator[Offer]:
    return map(Offer, _on_record().tags())


def _states(_: Typed) -> Iterator[Offer]:
    from prefectlite.states import STATE_NAMES

    for name, type_ in STATE_NAMES.items():
        yield Offer(name, "" if name.upper() == type_ else f"of type {type_.capitalize()}")


def _deployments(typed: Typed) -> Iterator[Offer]:
    for one in _on_record().deployments():
        told = f"{one.entrypoint}, work queue {one.work_queue}"
        yield Offer(f"{one.flow_name}/{one.name}", told)
        if typed.text and one.id.startswith(typed.text.lower()):
            yield Offer(one.id, f"{one.flow_name}/{one.name}, {told}")


def _work_queues(typed: Typed) -> Iterator[Offer]:
    wanted = _WORK_QUEUES_OF.get(typed.command, (False, True))
    for name, is_paused in _on_record().work_queues():
        if is_paused in wanted:
            yield Offer(name, "paused" if is_paused else "")


def _agents(_: Typed) -> Iterator[Offer]:
    return map(Offer, _on_record().agent_names())


def _blocks(_: Typed, *, types: Callable[[], Sequence[str]] | None = None) -> Iterator[Offer]:
    wanted = None if types is None else types()
    for type_, name in _on_record().blocks():
        if wanted is None or type_ in wanted:
            yield Offer(f"{type_}/{name}")


def _infrastructures() -> list[str]:
    from prefectlite.plugins import names

    return names("infrastructure")


def _block_types(_: Typed) -> Iterator[Offer]:
    yield from (Offer(type_, "built in") for type_ in _built_in_types())
    yield from (Offer(type_, "infrastructure") for type_ in _infrastructures())
    yield from (Offer(type_, entrypoint) for type_, entrypoint in _on_record().block_types())


def _built_in_types() -> Iterator[str]:
    """Yield the types that come with prefectlite, by their sources: to import them takes too long."""
    from prefectlite import plugins
    from prefectlite.names import kebab_case

    for name in plugins.names("blocks"):
        source = (Path(plugins.__file__).parent / "blocks" / f"{name}.py").read_text("utf-8")
        found: list[str] = []
        for class_name, slug in _BLOCK_LINE.findall(source):
            found = [*found, kebab_case(class_name)] if class_name else [*found[:-1], slug]
        yield from found


def _rules(_: Typed) -> Iterator[Offer]:
    for id_, block, is_active in _on_record().rules():
        yield Offer(id_, block if is_active else f"{block}, paused")


def _profiles(typed: Typed) -> Iterator[Offer]:
    if typed.command == "profile create" and not typed.placed:
        return iter(())  # a new name
    names = {DEFAULT_PROFILE: 0} | {
        name: len(keys) for name, keys in read_profiles().settings.items()
    }
    return (Offer(name, f"{count} settings" if count else "") for name, count in names.items())


def _set_keys(_: Typed) -> Iterator[Offer]:
    return map(Offer, own_profile().values)


def _assignments(typed: Typed) -> Iterator[Offer]:
    name, equals, _ = typed.text.partition("=")
    for setting in settings_to_show():
        if setting.reach is not Reach.ANYWHERE:
            continue
        if not equals:
            yield Offer(f"{setting.name}=", setting.description)
        elif setting.name == name.upper():
            yield from (Offer(f"{name}={value}") for value in _setting_values(setting))


def _setting_values(setting: Setting[object]) -> list[str]:
    default = setting.default()
    if isinstance(default, bool):
        return ["true", "false"]
    return [one.name for one in type(default)] if isinstance(default, Enum) else []


def _json_files(typed: Typed) -> Iterator[Offer] | None:
    """Offer ``@FILE``."""
    if not typed.text.startswith("@"):
        return iter([Offer("@")])
    if typed.text.startswith("@~"):
        return None
    found = _paths(typed.text[1:])
    return (Offer(f"@{path}{'/' * is_folder}") for path, is_folder, _ in found)


def _entrypoints(typed: Typed) -> Iterable[Offer] | None:
    target, colon, _ = typed.text.rpartition(":")
    if colon:
        return [Offer(f"{target}:{one.name}", one.summary) for one in _flows_in(target)]
    if typed.text.startswith("~"):
        return None  # only the shell knows whose home, and how to write it
    return [*_files_of_flows(typed.text), *_examples(typed.text)]


def _files_of_flows(text: str) -> list[Offer]:
    from prefectlite.flow_outlines import flows_in

    found = _paths(text)
    folders = [
        Offer(f"{path}/") for path, is_folder, file in found if is_folder and file.name[:1] != "_"
    ]
    files = [
        (path, file) for path, is_folder, file in found if path.endswith(_PYTHON) and not is_folder
    ]
    if len(files) > _MOST_FILES:
        return [*(Offer(path) for path, _ in files), *folders]
    offers = []
    for path, file in files:
        flows = flows_in(file)
        names = ", ".join(flow.name for flow in flows)
        if len(flows) == 1:
            offers.append(Offer(path, flows[0].summary or f"flow {names}"))
        elif flows:
            offers.append(Offer(f"{path}:", f"flows {names}"))
    return [*offers, *folders]


def _examples(text: str) -> Iterator[Offer]:
    """Offer the flows that come with prefectlite, to who has begun to name them."""
    package = "prefectlite.examples"
    if text and (package.startswith(text) or text.startswith(package)):
        from prefectlite.plugins import names

        yield from (Offer(f"{package}.{name}", "an example") for name in names("examples"))


def _paths(text: str) -> list[tuple[str, bool, Path]]:
    """Return what a folder has that begins like a path: how it is written, and whether it is a folder."""
    folder, slash, name = text.rpartition("/")
    head = folder + slash
    found = [
        (head + one.name, one.is_dir(), one)
        for one in sorted(Path(head or ".").iterdir())
        if one.name.startswith(name) and (name or not one.name.startswith("."))
    ]
    return [(path, is_folder, one) for path, is_folder, one in found if path.isprintable()]


def _flow_parameters(typed: Typed) -> Iterator[Offer]:
    """Offer ``KEY=`` for the parameters of the flow, or of the deployment's."""
    if "=" in typed.text or not typed.placed:
        return
    flow_parameters = _parameters_of(typed.placed[0])
    given = {text.partition("=")[0] for text in typed.given.get("param", ())}
    for name, told in flow_parameters.items():
        if name not in given:
            yield Offer(f"{name}=", told)


def _parameters_of(reference: str) -> dict[str, str]:
    for one in _flow_named(reference, Path()):
        return one.parameters
    for deployment in _on_record().deployments():
        names = {f"{deployment.flow_name}/{deployment.name}", deployment.name, deployment.id}
        if reference in names or (len(reference) > 3 and deployment.id.startswith(reference)):  # noqa: PLR2004 - or it could be any
            import json

            values = json.loads(deployment.parameters)
            for one in _flow_named(deployment.entrypoint, Path(deployment.working_directory)):
                return one.parameters
            return {name: json.dumps(value) for name, value in values.items()}
    return {}


def _flow_named(entrypoint: str, folder: Path) -> list[FlowOutline]:
    """Return the flow that an entrypoint names, or nothing."""
    target, colon, name = entrypoint.rpartition(":")
    flows = _flows_in(target if colon else entrypoint, folder)
    if not colon:
        return flows if len(flows) == 1 else []
    return [one for one in flows if one.name == name]


def _flows_in(target: str, folder: Path | None = None) -> list[FlowOutline]:
    from prefectlite.flow_outlines import file_of, flows_in

    file = file_of(target, folder or Path())
    return [] if file is None else flows_in(file)


def _columns(typed: Typed) -> Iterator[Offer]:
    """Offer the columns of the table that a command shows, after those that are named already."""
    head, comma, last = typed.text.rpartition(",")
    plus = "+" * last.startswith("+")
    named = {name.strip("+ ") for name in head.split(",")}
    for name in _table_columns(typed.function):
        if name not in named:
            yield Offer(f"{head}{comma}{plus}{name}")


def _sort_columns(typed: Typed) -> Iterator[Offer]:
    minus = "-" * typed.text.startswith("-")
    used = _globals_of(typed.function)
    orders = next((value for name, value in used.items() if name.endswith("_ORDERS")), None)
    return (Offer(f"{minus}{name}") for name in orders or _table_columns(typed.function))


def _table_columns(function: Callable[..., object]) -> list[str]:
    from prefectlite.record_tables import RecordTable

    tables = [one for one in _globals_of(function).values() if isinstance(one, RecordTable)]
    return [column.name for table in tables[:1] for column in table.columns]


def _globals_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return what a function uses of its module: so nobody needs to say which table an ``ls`` shows."""
    names = function.__code__.co_names
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


# What a command can be about, where that is not any.
_FLOW_RUNS_OF: dict[str, Sequence[Which]] = {
    "flow-run cancel": (Which.UNFINISHED,),
    "flow-run pause": (Which.RUNNING,),
    "flow-run resume": (Which.PAUSED,),
    "flow-run delete": (Which.FINAL, Which.UNFINISHED),
    "flow-run wait": (Which.UNFINISHED, Which.FINAL),
    "flow-run watch": (Which.UNFINISHED, Which.FINAL),
    "flow-run logs": (Which.UNFINISHED, Which.FINAL),
}
# Whether the queues are paused.
_WORK_QUEUES_OF = {"work-queue pause": (False,), "work-queue resume": (True,)}
_KINDS: dict[str, Callable[[Typed], Iterable[Offer] | None]] = {
    "flow-run": _flow_runs,
    "task-run": _task_runs,
    "run-input": _run_inputs,
    "flow": _flows,
    "tag": _tags,
    "state": _states,
    "entrypoint": _entrypoints,
    "parameter": _flow_parameters,
    "json-file": _json_files,
    "deployment": _deployments,
    "work-queue": _work_queues,
    "agent": _agents,
    "block": _blocks,
    "block:infrastructure": partial(_blocks, types=_infrastructures),
    "block-type": _block_types,
    "notification": _rules,
    "profile": _profiles,
    "setting": _set_keys,
    "assignment": _assignments,
    "column": _columns,
    "sort-column": _sort_columns,
}
