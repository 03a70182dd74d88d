"""A flow run as it goes on, with all that is below it: ``prefectlite flow-run watch``."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from heapq import merge
from operator import itemgetter
from typing import Annotated

from prefectlite import console
from prefectlite.clock import EPOCH, monotonic, now
from prefectlite.commands import Option
from prefectlite.endings import exit_code_of, tell_ending
from prefectlite.following import Followed, follow
from prefectlite.listings import FlowRunReference, settled_registry
from prefectlite.live_views import LiveView
from prefectlite.log_listings import LogReader, Sources
from prefectlite.records import FlowRun, LogLine, LogQuery
from prefectlite.references import find_one
from prefectlite.registry import Registry
from prefectlite.run_tree_texts import fitted, tree_lines
from prefectlite.run_trees import RunTree, Tally, read_tree
from prefectlite.terminals import can_redraw, is_in_foreground

# How soon a terminal shows a change, at best, and that it has another size.
_TICK_SECONDS, _FRAME_SECONDS = 0.2, 0.1
# Durations are shown in seconds.
_REDRAW_SECONDS = 1.0
# A view of very many runs takes long to make; then it rests so many times as long.
_REST_TIMES = 20
# What has happened is held back for a moment, so that it is told in order.
_EVENT_SECONDS = 0.05
# At most a third of the view, since the tree says more.
_MOST_LOG_LINES, _LOG_SHARE = 10, 3
_INFO = 20
# What the last line of a run begins with, and how soon after its end that is on record.
_END = "Finished in state "
_LINE_TIME = timedelta(seconds=1)
# When, the level, whose it is, and the message.
_Told = tuple[datetime, int, str, str]


def watch(
    id: FlowRunReference,  # noqa: A002 - the name of the argument
    *,
    as_json: Annotated[
        bool,
        Option(
            "--json", description="Print each state that a run takes as one JSON object a line."
        ),
    ] = False,
) -> int:
    """Watch a flow run until it has ended, and exit with the code that says how.

    A terminal shows its task runs and subflow runs, how far they are, and the last log lines;
    elsewhere its states and log lines are printed as they come. A run that has not begun is waited
    for. Ctrl-C ends the watching, and nothing else.

    Examples:
        prefectlite flow-run watch gigantic-cockatoo
        prefectlite flow-run watch gigantic-cockatoo --json
    """
    registry = settled_registry()
    followed = Followed(find_one(id, registry.find_flow_run))
    if as_json:
        _print_events(registry, followed)
    elif can_redraw(sys.stdout):
        _draw(registry, followed)
    else:
        _print_changes(registry, followed)
    flow_run = followed.flow_run
    if flow_run.state.is_completed():
        return 0
    tell_ending(flow_run, flow_run.state)
    return exit_code_of(flow_run.state)


def _print_events(registry: Registry, followed: Followed) -> None:
    """Print what ``run --events`` writes."""
    for event in _events(registry, followed):
        console.out_json_line(event)
        console.flush()


def _events(registry: Registry, followed: Followed) -> Iterator[dict[str, object]]:
    from prefectlite.run_events import EventFollower

    follower = EventFollower(followed)
    for look in follow(registry, followed, tick_seconds=_EVENT_SECONDS):
        yield from follower.events(is_last=look.has_ended)


def _print_changes(registry: Registry, followed: Followed) -> None:
    """Print the states of flow runs and all log lines, each as soon as it is on record."""
    reader = LogReader(registry, followed.flow_run.id, LogQuery(with_subflows=True))
    sources = Sources(registry, followed.flow_run)
    changes = _Changes(registry, followed.flow_run.id)
    for look in follow(registry, followed):
        lines = ((line, sources.name(line)) for line in changes.heard(reader.lines()))
        told = merge(
            changes.new(),
            ((line.timestamp, line.level, name, line.message) for line, name in lines),
            key=itemgetter(0),
        )
        for texts in told:
            console.out(console.log_text(*texts))
        for texts in changes.unheard(is_last=look.has_ended):
            console.out(console.log_text(*texts))
        console.flush()


class _Changes:
    """The states that flow runs take, without those that the log tells of.

    It tells how a run ended that had begun, unless another ended it.
    """

    def __init__(self, registry: Registry, flow_run_id: str) -> None:
        self._registry = registry
        self._id = flow_run_id
        self._seen: dict[str, int] = {}
        self._ended: set[str] = set()
        self._waiting: dict[str, _Told] = {}

    def new(self) -> list[_Told]:
        """Return those since the last time, oldest first, but those of one run in their order."""
        found = []
        for flow_run in self._registry.list_run_tree(self._id):
            known = self._seen.get(flow_run.id, 0)
            if flow_run.state_version <= known:
                continue
            source, at = f"Flow run {flow_run.name!r}", EPOCH
            for change in self._registry.state_history(flow_run)[known:]:
                state = change.state
                told = (state.timestamp, _INFO, source, f"State {state}")
                self._seen[flow_run.id] = change.version
                at = max(at, state.timestamp)  # the clock may have been set back
                if not (state.is_final() and flow_run.run_count):
                    found.append((at, told))
                elif state.is_crashed() or state.is_cancelled():
                    self._waiting[flow_run.id] = told
        return [told for _, told in sorted(found, key=itemgetter(0))]

    def heard(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Yield lines of the log, and remember which ends they tell."""
        for line in lines:
            if line.logger == "prefectlite.flow_runs" and line.message.startswith(_END):
                self._ended.add(line.flow_run_id)
            yield line

    def unheard(self, *, is_last: bool) -> list[_Told]:
        """Return the ends that the log should have told by now, and did not."""
        at = now()
        due = [
            id_ for id_, told in self._waiting.items() if is_last or abs(at - told[0]) > _LINE_TIME
        ]
        told = {id_: self._waiting.pop(id_) for id_ in due}
        return [told[id_] for id_ in due if id_ not in self._ended]


def _draw(registry: Registry, followed: Followed) -> None:
    """Show it on a terminal, and leave it there as it has ended."""
    view, frame = LiveView(), _Frame(registry, followed.flow_run)
    signal.signal(signal.SIGCONT, lambda *_: view.begin_below())
    drawn: object = None
    due_at = redraw_at = 0.0
    for look in follow(registry, followed, tick_seconds=_TICK_SECONDS):
        began = monotonic()
        shape = view.size(), look.mark
        is_due = shape != drawn or began >= redraw_at
        if look.has_ended or (is_due and began >= due_at and is_in_foreground(sys.stdout)):
            view.draw(frame.lines(*view.size(), mark=look.mark))
            drawn = shape
            due_at = monotonic() + max(_FRAME_SECONDS, (monotonic() - began) * _REST_TIMES)
            redraw_at = began + _REDRAW_SECONDS


class _Frame:
    """What is shown of a flow run on a terminal."""

    def __init__(self, registry: Registry, flow_run: FlowRun) -> None:
        self._registry = registry
        self._id = flow_run.id
        self._reader = LogReader(registry, flow_run.id, LogQuery(with_subflows=True))
        self._sources = Sources(registry, flow_run)
        self._log: deque[LogLine] = deque(maxlen=_MOST_LOG_LINES)
        self._read: object = None
        self._tree = RunTree((), Tally(), 0)

    def lines(self, columns: int, rows: int, *, mark: object) -> list[list[str]]:
        """Return so many lines at most: the tree, and the last of the log.

        Args:
            columns: How wide a line may be.
            rows: How many there may be.
            mark: The registry's; where it is that of the last time, nothing is read again.
        """
        is_unicode = console.shows_unicode(sys.stdout)
        if self._read != (rows, mark):
            self._log.extend(self._reader.last_lines(_MOST_LOG_LINES))
            # And a line between them, and one to say what is missing.
            most = rows - min(len(self._log), rows // _LOG_SHARE) - 2
            self._tree = read_tree(self._registry, self._id, most=max(1, most))
            self._read = rows, mark
        lines = [*tree_lines(self._tree, columns=columns, is_unicode=is_unicode)]
        left = min(rows - len(lines) - 1, rows // _LOG_SHARE)
        logged = [*self._log][-left:] if left > 0 else []
        if logged:
            lines.append([])
        for line in logged:
            message = console.shown_on_stdout(line.message.partition("\n")[0])
            texts = console.log_heading(line.timestamp, line.level, self._sources.name(line))
            lines.append(fitted([*texts, message], columns, mark="…" if is_unicode else ">"))
        return lines[:rows]


COMMANDS = (watch,)
