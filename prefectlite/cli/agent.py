"""Launch the runs of deployments, and see which agents do.

``prefectlite agent``. An agent takes runs that are due from work queues; each runs in a process of
its own, which the agent's end does not touch.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated

from prefectlite import console
from prefectlite.clock import now
from prefectlite.commands import Option
from prefectlite.deployment_records import DEFAULT_WORK_QUEUE, Agent
from prefectlite.listings import settled_registry, writable_registry
from prefectlite.names import near_hint
from prefectlite.record_tables import Column, Listing, RecordTable, show_all

_AGENTS: RecordTable[Agent] = RecordTable(
    columns=(
        Column("name", attrgetter("name"), is_cut=True),
        Column("queues", attrgetter("work_queues"), is_cut=True),
        Column("limit", attrgetter("concurrency_limit")),
        Column("process", lambda one: f"{one.process.hostname}:{one.process.pid}"),
        Column("started", attrgetter("started_at")),
    ),
    keep=("name", "process", "queues"),
    document=Agent.dict,
    reference=attrgetter("name"),
)


def start(
    *,
    queue: Annotated[
        list[str] | None,
        Option(
            "--queue",
            "-q",
            description=f"A work queue to take runs from, {DEFAULT_WORK_QUEUE!r} if none is given;"
            " may be repeated.",
            metavar="QUEUE",
            complete="work-queue",
        ),
    ] = None,
    run_once: Annotated[
        bool, Option("--run-once", description="Do what is due now, and exit: made for cron.")
    ] = False,
    limit: Annotated[
        int | None,
        Option(
            "--limit",
            description="How many runs that agents of this name have taken may be going on at once;"
            " any number if not given.",
            metavar="N",
            minimum=1,
        ),
    ] = None,
    name: Annotated[
        str | None,
        Option(
            "--name",
            "-n",
            description="Its name; the host's if not given.",
            metavar="NAME",
            complete="agent",
        ),
    ] = None,
) -> int:
    """Start an agent: it launches runs that are due until it is told to end.

    It also ends runs that are being cancelled, and finds those whose process has died. SIGTERM and
    Ctrl-C end the agent, and none of its runs. Two agents never launch the same run.

    Examples:
        prefectlite agent start -q default -q urgent --limit 4
        prefectlite agent start --run-once
    """
    from prefectlite.agent import Service, default_name, living_agents, new_agent
    from prefectlite.deployments import check_name
    from prefectlite.systemd import kill_mode_warning

    name = default_name() if name is None else name
    check_name("agent", name)
    registry = writable_registry()
    agent = new_agent(name, queue or [DEFAULT_WORK_QUEUE], limit)
    service = Service(registry, agent, _say)
    # One that nobody named is not there before the first deployment.
    known = {DEFAULT_WORK_QUEUE, *(each.name for each in registry.deployments.list_work_queues())}
    for missing in (each for each in agent.work_queues if each not in known):
        near = near_hint(missing, known)
        told = f"there is no work queue {missing!r} yet; its runs are taken all the same"
        if near or not run_once:  # cron would mail it each minute
            console.note(f"{told}; {near}" if near else told)
    if run_once:
        return service.run_once()
    warning = kill_mode_warning()
    if warning is not None:
        console.note(warning)
    living_agents(registry, lambda: registry)
    return service.run()


def ls(listing: Listing) -> None:
    """List the agents that are going. Those of cron come and go, and are seldom seen.

    Columns: name, queues, limit, process, started.

    Examples:
        prefectlite agent ls
        prefectlite agent ls --json
    """
    from prefectlite.agent import living_agents

    show_all(living_agents(settled_registry(), writable_registry), _AGENTS, listing)


def _say(text: str) -> None:
    console.say(f"{console.moment_text(now())} | {console.escaped(text)}")


COMMANDS = (start, ls)
