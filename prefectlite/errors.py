"""Every error of prefectlite, in one tree.

::

    PrefectLiteError                       exit code 1
    |- FailedRun, CrashedRun, CancelledRun, UnfinishedRun, MissingResult, UpstreamTaskError
    |- MissingContextError                 (also a RuntimeError)
    |- ResultNotStoredError
    |- UsageError                          exit code 2
    |  |- ParameterTypeError               (also a TypeError)
    |  |- EntrypointError
    |  |- SettingError
    |  |- MappingMissingIterable
    |  '- MappingLengthMismatch
    |- NotFoundError                       exit code 3
    |- ConflictError                       exit code 4
    |  |- AmbiguousReferenceError
    |  |- StateConflictError
    |  |- FlowRunNotRunningError
    |  |- NotPausedError
    |  |- FlowPauseTimeout
    |  |- BlockNotLoadedError
    |  |- RunFinalError
    |  '- RunNotFinalError
    |- InfrastructureError                 exit code 5
    |  |- InfrastructureNotAvailable
    |  '- InfrastructureNotFound
    |- NotificationError                   exit code 5
    |- OutputError                         exit code 5
    |  '- OutputClosedError                exit code 141
    '- RegistryError                       exit code 5
       |- RegistryUnavailableError
       |  '- RegistryReplacedError
       |- RegistryReadOnlyError
       |- RegistryCorruptError
       |- RegistryNewerError
       |- RegistryFullError
       '- RegistryLockTimeoutError

An error says what happened, to which object, and in ``hint`` what to do next. The command line
prints both and exits with ``exit_code``; it needs to know nothing else about an error. Names that
Prefect 2.8 users catch keep their spelling.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefectlite.states import State


class PrefectLiteError(Exception):
    """Something that prefectlite could not do, in words for the person who asked.

    Attributes:
        hint: What to do next, one sentence; None where there is nothing to advise.
        exit_code: The exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # An error that cannot be unpickled breaks the pool of processes that it travels in.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[PrefectLiteError], args: tuple[object, ...], fields: dict[str, object]
) -> PrefectLiteError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class FailedRun(PrefectLiteError):
    """The result was asked of a run that Failed and left no exception behind."""


class CrashedRun(PrefectLiteError):
    """The result was asked of a run that Crashed."""


class CancelledRun(PrefectLiteError):
    """The result was asked of a run that was Cancelled."""


class UnfinishedRun(PrefectLiteError):
    """The result was asked of a run that is not in a final state."""


class MissingResult(PrefectLiteError):
    """A run Completed, but its result is not in this process and was not persisted."""


class UpstreamTaskError(PrefectLiteError):
    """A task could not start because a run that it needs did not complete."""


class MissingContextError(PrefectLiteError, RuntimeError):
    """Something that only works inside a flow run or task run was used outside one."""


class ResultNotStoredError(PrefectLiteError):
    """A result could not be pickled, written or read back."""


class UsageError(PrefectLiteError):
    """The request itself is wrong: an option, a parameter, an entrypoint."""

    exit_code = 2


class ParameterTypeError(UsageError, TypeError):
    """A flow was called with parameters that its signature or annotations refuse."""


class EntrypointError(UsageError):
    """An entrypoint names no module, file or flow that can be loaded."""


class SettingError(UsageError):
    """A setting has a value that cannot be understood."""


class MappingMissingIterable(UsageError):
    """``map`` was called without any iterable to map over."""


class MappingLengthMismatch(UsageError):
    """``map`` was called with iterables of different lengths."""


class NotFoundError(PrefectLiteError):
    """No object has the id, id prefix or name that was given."""

    exit_code = 3


class ConflictError(PrefectLiteError):
    """The object's present state does not allow what was asked."""

    exit_code = 4


class AmbiguousReferenceError(ConflictError):
    """An id prefix or a name means more than one run, or whatever was asked for.

    Attributes:
        candidates: What it could mean, newest first, at most ten: each its id, and what tells it apart.
    """

    def __init__(self, reference: str, candidates: Sequence[str], *, noun: str = "run") -> None:
        super().__init__(
            f"{reference!r} means more than one {noun}: {', '.join(candidates)}",
            hint="name it by its id, or by the start of that",
        )
        self.candidates = tuple(candidates)


class StateConflictError(ConflictError):
    """A state change was refused: the table forbids it, or another writer was first.

    Attributes:
        current: The state that the run is in, as the registry has it now.
    """

    def __init__(self, run: str, *, current: State, proposed: State) -> None:
        if current.name == proposed.name:
            super().__init__(f"{run} is {current.name} already")
        else:
            super().__init__(f"{run} is {current.name}; it cannot become {proposed.name}")
        self.current = current


class FlowRunNotRunningError(ConflictError):
    """A task may not start, because its flow run is no longer Running.

    Attributes:
        flow_run_id: Which.
        current: The flow run's state, as the registry has it now.
    """

    def __init__(self, flow_run_id: str, *, current: State) -> None:
        super().__init__(f"flow run {flow_run_id} is {current.name}; no new task starts in it")
        self.flow_run_id = flow_run_id
        self.current = current


class NotPausedError(ConflictError):
    """A flow run cannot be resumed, because it is not Paused."""


class FlowPauseTimeout(ConflictError):
    """A flow run was paused and nobody has resumed it in time: it has Failed."""


class BlockNotLoadedError(ConflictError):
    """A block on record cannot become one: it does not fit its class, or lacks what it needs."""


class RunNotFinalError(ConflictError):
    """Something was asked that needs a run which has ended."""


class RunFinalError(ConflictError):
    """Something was asked that needs a run which has not ended."""


class InfrastructureError(PrefectLiteError):
    """What a run runs in could not be started, reached or ended."""

    exit_code = 5


class InfrastructureNotAvailable(InfrastructureError):
    """What a run runs in cannot be reached from here: another host, container or user."""


class InfrastructureNotFound(InfrastructureError):
    """What a run ran in is gone."""


class NotificationError(PrefectLiteError):
    """A service did not take a notification. It never says anything secret of the block."""

    exit_code = 5


class OutputError(PrefectLiteError):
    """What was asked for could not be written to stdout."""

    exit_code = 5


class OutputClosedError(OutputError):
    """The reader of stdout has gone; a command ends without a word, as from SIGPIPE."""

    exit_code = 141


class RegistryError(PrefectLiteError):
    """The registry could not be used."""

    exit_code = 5


class RegistryUnavailableError(RegistryError):
    """The registry cannot be opened where it is: permissions, a missing folder, a filesystem."""


class RegistryReplacedError(RegistryUnavailableError):
    """Another file has the place of the registry's, or of its log; who has it open cannot go on."""


class RegistryReadOnlyError(RegistryError):
    """The registry can be read but not written."""


class RegistryCorruptError(RegistryError):
    """The registry's file is damaged, or is no registry."""


class RegistryNewerError(RegistryError):
    """The registry was written by a newer version of prefectlite."""


class RegistryFullError(RegistryError):
    """The registry's disk is full; nothing that was acknowledged before is lost."""


class RegistryLockTimeoutError(RegistryError):
    """Another process held the registry's write gate for too long."""
