"""The man pages that are about no command: settings, files of deployments, and states.

``manuals`` writes them. Tables are those that the program goes by; only what these do not say stands
here. It must never say what a setting or a state does in other words than where that is declared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prefectlite.block_fields import fields_of_infrastructure
from prefectlite.endings import exit_code_of
from prefectlite.roff import ManPage, bold
from prefectlite.setting_sources import Reach, settings_to_show
from prefectlite.setting_values import plain_text
from prefectlite.states import FINAL, STATE_NAMES, TRANSITIONS, State, StateType

#: Where a default depends on who asks, what it is.
_DEFAULTS = {
    "NO_COLOR": "",
    "PREFECTLITE_HOME": "~/.local/share/prefectlite on Linux, below XDG_DATA_HOME where that is set;"
    " elsewhere the folder that the system has for such data",
    "PREFECTLITE_PROFILES_PATH": "~/.config/prefectlite/profiles.toml on Linux, below XDG_CONFIG_HOME"
    " where that is set",
    "PREFECTLITE_REGISTRY": "registry.db in PREFECTLITE_HOME",
}
_PROFILES = (
    'active = "ci"',
    "",
    "[profiles.ci]",
    'PREFECTLITE_LOGGING_LEVEL = "DEBUG"',
    'PREFECTLITE_HOME = "~/ci"',
    "PREFECTLITE_REGISTRY_LOCK_SECONDS = 60",
)
_DEPLOYMENT = (
    'name = "nightly"',
    'flow_name = "etl"',
    'entrypoint = "my_flows.py:etl"',
    'working_directory = "."',
    'tags = ["prod"]',
    'work_queue = "slow"',
    "",
    "[parameters]",
    'day = "today"',
    "",
    "[infrastructure]",
    'type = "process"',
    "grace_seconds = 60",
)
#: The keys of a deployment's file, and what each is.
_KEYS = {
    "name": "Its name, unique among the deployments of its flow. It must be there.",
    "flow_name": "The name of its flow. It must be there.",
    "entrypoint": "Where the flow is: `path.py:flow` or `module:flow`, seen from the working directory."
    " It must be there.",
    "working_directory": "The folder in which its runs begin; a relative one begins at the folder of the"
    " file. The folder of the file if it is not given.",
    "description": "What it is for.",
    "version": "The version of the flow.",
    "tags": "A list of tags, which its runs have.",
    "work_queue": "The work queue that its runs wait in; `default` if it is not given.",
    "parameters": "A table: what the flow is called with, where a run says nothing else. It may hold no"
    " secret.",
    "infrastructure": "A table: what its runs run in. See below.",
}
#: What a state means, by its name.
_MEANINGS = {
    "Scheduled": "It waits for its time, or for an agent to take it.",
    "Late": "As Scheduled, and nobody has taken it within 15 seconds of its time.",
    "AwaitingRetry": "Its attempt failed, and another one follows.",
    "Resuming": "It was suspended, and waits to be taken again.",
    "Pending": "It was accepted, or taken by an agent, and has not begun.",
    "NotReady": "A task run whose upstream did not complete; it never begins.",
    "Running": "Its code may be executing.",
    "Retrying": "As Running, in the second attempt or a later one.",
    "Paused": "It waits for a person, and its process with it.",
    "Suspended": "It waits for a person, without a process.",
    "Cancelling": "Its end was asked for, and is not proven yet.",
    "Completed": "It ended well.",
    "Cached": "A task run that took the result of an earlier one with the same cache key.",
    "Failed": "Its code failed, or its pause was over before anybody resumed it.",
    "TimedOut": "It took longer than its timeout.",
    "Cancelled": "It was cancelled, and nothing of it runs any more.",
    "Crashed": "Something outside its code ended it: a signal, Ctrl-C, the end of its machine.",
}


class Topic(NamedTuple):
    """One such page.

    Attributes:
        name: What ``man`` finds it by.
        section: Of the manual.
        summary: What it is about.
        related: Pages that it names at its end, beside that of the program.
        write: Writes what stands between its name and its end.
    """

    name: str
    section: int
    summary: str
    related: tuple[str, ...]
    write: Callable[[ManPage], None]


def _write_settings(page: ManPage) -> None:
    page.heading("Description")
    page.paragraphs(
        "A setting is what the environment says, else what the profile says, else its default. An"
        " option of a command comes before all three. `prefectlite config view --show-sources` shows"
        " which settings there are now and where each comes from.",
        "A profile is a named set of settings. All of them stand in one file in TOML, `profiles.toml`."
        " The profile that counts is that of --profile, which stands before the command, else of"
        " PREFECTLITE_PROFILE, else the one that the file calls active, else `default`, which need not"
        " exist. A process reads it once, and what it launches keeps to it.",
    )
    page.heading("File format")
    page.items(
        [
            (bold("active"), "The name of the profile that counts where none is asked for."),
            (
                bold("[profiles.NAME]"),
                "The settings of a profile, by their names below: strings, numbers, true or false.",
            ),
        ]
    )
    page.paragraphs(
        "A path begins with / or ~, since a profile is used in any folder.",
        "A key that is no setting is an error for every command but `prefectlite config` and"
        " `prefectlite profile`, which can mend it. These keep what they do not understand, but no"
        " comments. The file is readable for its owner alone once they have written it.",
    )
    page.heading("Settings")
    page.paragraphs(
        "Words such as true and false, and levels, may be in any case. Names of Prefect, such as"
        " PREFECT_LOGGING_LEVEL, are taken by `prefectlite config set`, and nowhere else."
    )
    page.items((bold(setting.name), _setting_text(setting.name)) for setting in settings_to_show())
    page.heading("Files")
    page.items(
        [(bold("~/.config/prefectlite/profiles.toml"), "The file of profiles, on Linux.")],
    )
    page.heading("Examples")
    page.literal(_PROFILES)


def _setting_text(name: str) -> str:
    setting = next(one for one in settings_to_show() if one.name == name)
    text = setting.description
    default = _DEFAULTS[name] if name in _DEFAULTS else plain_text(setting.default())
    if default:
        text += f" Default: {default}."
    if setting.reach is Reach.ENVIRONMENT:
        text += " It is set in the environment alone."
    return text


def _write_deployment_file(page: ManPage) -> None:
    page.heading("Description")
    page.paragraphs(
        "A deployment is a flow that can be run elsewhere and later. Its file is written by"
        " `prefectlite deployment build`, read and changed by people, kept beside the code, and put on"
        " record by `prefectlite deployment apply`, again after each change. One file, in TOML, is one"
        " deployment; it is usually called `NAME-deployment.toml`.",
    )
    page.heading("Keys")
    page.items((bold(key), meaning) for key, meaning in _KEYS.items())
    page.heading("Infrastructure")
    page.paragraphs(
        "`type` is the kind of infrastructure, and the other keys are what differs from its defaults."
        ' Instead of a type, `block = "process/NAME"` has it be as that block, but for what is said'
        " here. A run keeps a copy of it, as it is when the run is made.",
    )
    _, fields = fields_of_infrastructure("process")
    page.paragraphs("The fields of the type `process`:")
    page.items((bold(one.name), one.description + _default_text(one.default)) for one in fields)
    page.heading("Examples")
    page.literal(_DEPLOYMENT)


def _default_text(default: object) -> str:
    return "" if default in (None, [], {}) else f" Default: {plain_text(default)}."


def _write_states(page: ManPage) -> None:
    page.heading("Description")
    page.paragraphs(
        "A flow run or a task run is in one state at a time. Its type is what the engine and the"
        " registry go by, and its name says more to a person. Each change is on record with its time,"
        " a message, and who made it. Where a command asks for a state, it takes the name or the type,"
        " in any case; a word that is both, such as failed, means the type.",
    )
    page.heading("States")
    for type_ in StateType:
        page.subheading(type_)
        named = [name for name, kind in STATE_NAMES.items() if kind is type_]
        page.items((bold(name), _state_text(State(type_, name))) for name in named)
        followers = [one.value for one in StateType if one in TRANSITIONS[type_]]
        then = f"It may become {_listed(followers)}." if followers else "It is final."
        page.paragraphs(then)
    page.heading("Order")
    page.paragraphs(
        "A final state never changes, whoever asks. Of two who change a run at the same moment exactly"
        " one wins, and the other is told what it lost to. A task run is Pending and Running in one"
        " step. No new task begins once its flow run is Cancelling.",
    )
    _write_timeouts_and_ends(page)
    page.heading("Exit status")
    page.paragraphs(
        "`prefectlite run`, and what waits for a run, exits by its final state. The codes of everything"
        " else are in prefectlite(1).",
    )
    names = [name for name, kind in STATE_NAMES.items() if kind in FINAL]
    codes = {name: str(exit_code_of(State(STATE_NAMES[name], name))) for name in names}
    for code in dict.fromkeys(codes.values()):
        page.items(
            [(bold(code), f"{_listed([name for name in names if codes[name] == code])}.")], width=6
        )


def _write_timeouts_and_ends(page: ManPage) -> None:
    page.heading("Timeouts")
    page.paragraphs(
        "A run that took longer than its timeout is TimedOut, by the clock, even if its code caught"
        " the interruption and returned. Each attempt has a clock of its own. The main thread is"
        " interrupted in sleeps, locks, sockets and loops; a long call into C first returns. A thread of a"
        " task runner is interrupted at its next bytecode; where that never comes the flow goes on"
        " without it. A process of a task runner is killed a second later, and that of a run with a"
        " supervisor after its grace.",
    )
    page.heading("Cancellation")
    page.paragraphs(
        "A run that has not begun is Cancelled at once. One that has is Cancelling: its own process"
        " sees that within a quarter of a second, and runs its `finally` blocks and hooks. What has not"
        " ended after the grace period (30 seconds, or --grace) is killed, with all the processes that"
        " it started. Only when these are gone is the run Cancelled, and its message says how it ended:"
        " by itself, terminated, or killed. A flow that finished before it was reached is Completed,"
        " and its message says so. Subflow runs end with the run that called them.",
    )
    page.heading("Pauses and crashes")
    page.paragraphs(
        "A paused run that nobody resumes in time is Failed at that moment, for whoever reads it. A run"
        " whose process died, or whose machine was restarted, is Crashed for whoever looks next: no"
        " command shows it as Running.",
    )


def _state_text(state: State) -> str:
    text = _MEANINGS[state.name]
    return f"{text} Exit code: {exit_code_of(state)}." if state.is_final() else text


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


TOPICS = (
    Topic(
        "prefectlite-settings",
        5,
        "settings of prefectlite, and the profiles that keep them",
        ("prefectlite-config", "prefectlite-profile"),
        _write_settings,
    ),
    Topic(
        "prefectlite-deployment-file",
        5,
        "a flow, what it is called with, and what it runs in",
        ("prefectlite-deployment",),
        _write_deployment_file,
    ),
    Topic(
        "prefectlite-states",
        7,
        "the states of flow runs and task runs, and their exit codes",
        ("prefectlite-flow-run", "prefectlite-run"),
        _write_states,
    ),
)
