"""Reads the arguments of a command by its declaration, and says what is wrong with them.

``cli`` only. What stands for what is getopt's rule: an option's value is the next argument whatever
that looks like, the last one of several counts, options may stand anywhere before ``--``, short ones
may be joined. Names are never abbreviated: a script must not break when an option is added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from prefectlite.commands import Function, Parameter, arranged, parameters
from prefectlite.errors import UsageError
from prefectlite.names import near_hint

PROGRAM = "prefectlite"
HELP = ("-h", "--help")
STANDS_BEFORE = f"it stands before the command, right after {PROGRAM}"
# A text in quotes that says nothing more than this may be shown whole.
_MOST_CHARACTERS = 60


def read_arguments(
    function: Function, arguments: Sequence[str], *, command: str, leading: Collection[str] = ()
) -> dict[str, object] | None:
    """Return what to call a command with; None where its help is asked for.

    Args:
        function: The command.
        arguments: Those after its name.
        command: Its words, such as ``flow-run ls``.
        leading: The names of options that only stand before the command.

    Raises:
        UsageError: They are wrong.
    """
    reading = _Reading(function, arguments, command, leading)
    return arranged(function, reading.values()) if reading.read_all() else None


def read_leading_options(
    function: Function, arguments: Sequence[str]
) -> tuple[dict[str, object], list[str]] | None:
    """Return the values of the options before the first other argument, and what follows them.

    None where help is asked for.

    Raises:
        UsageError: They are wrong.
    """
    reading = _Reading(function, arguments, "")
    rest = reading.read_options()
    return None if rest is None else (reading.values(), rest)


def shown(text: str) -> str:
    """Return an argument in quotes, cut where it is long."""
    return repr(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}...")


class _Reading:
    """Arguments on their way into values."""

    def __init__(
        self,
        function: Function,
        arguments: Sequence[str],
        command: str,
        leading: Collection[str] = (),
    ) -> None:
        self._leading = leading
        self._parameters = parameters(function)
        self._options = {name: option for option in self._parameters for name in option.names}
        self._left = deque(arguments)
        self._texts: dict[str, list[str]] = {}
        self._placed: deque[str] = deque()
        self._see = f"see: {' '.join(filter(None, [PROGRAM, command, HELP[1]]))}"

    def read_all(self) -> bool:
        """Take every argument; return False where help is asked for."""
        while self._left:
            argument = self._left.popleft()
            if argument == "--":
                self._placed.extend(self._left)
                return True
            if not _is_option(argument):
                self._placed.append(argument)
            elif argument in HELP:
                return False
            else:
                self._read_option(argument)
        return True

    def read_options(self) -> list[str] | None:
        """Take options up to the first argument that is none, and return the rest."""
        while self._left and _is_option(self._left[0]):
            argument = self._left.popleft()
            if argument in HELP:
                return None
            self._read_option(argument)
        return list(self._left)

    def values(self) -> dict[str, object]:
        """Return the values of all parameters."""
        values = {parameter.name: self._value(parameter) for parameter in self._parameters}
        if self._placed:
            raise self._error(f"unexpected argument: {shown(self._placed[0])}")
        return values

    def _read_option(self, argument: str) -> None:
        if argument.startswith("--"):
            name, has_value, value = argument.partition("=")
            option = self._option(name)
            if option.is_flag and has_value:
                raise self._error(f"{name} takes no value")
            self._give(option, name, value if has_value else None)
            return
        for index, letter in enumerate(argument[1:], start=2):
            name = f"-{letter}"
            option = self._option(name)
            self._give(option, name, argument[index:] or None)
            if not option.is_flag:
                return

    def _option(self, name: str) -> Parameter:
        option = self._options.get(name)
        if option is None:
            if name in self._leading:
                raise UsageError(f"no such option: {name}", hint=STANDS_BEFORE)
            known = [name for name in (*self._options, HELP[1]) if name.startswith("--")]
            raise UsageError(
                f"no such option: {shown(name)[1:-1]}", hint=near_hint(name, known) or self._see
            )
        return option

    def _give(self, option: Parameter, name: str, value: str | None) -> None:
        if option.is_flag:
            value = ""
        elif value is None:
            if not self._left:
                raise self._error(f"{name} needs a value: {name} {option.metavar}")
            value = self._left.popleft()
        self._texts.setdefault(option.name, []).append(value)

    def _value(self, parameter: Parameter) -> object:
        texts = self._texts.get(parameter.name)
        if not parameter.names and self._placed:
            texts = list(self._placed) if parameter.is_list else [self._placed[0]]
            for _ in texts:
                self._placed.popleft()
        if texts is None:
            if parameter.is_required:
                kind = "option" if parameter.names else "argument"
                name = (
                    f"{parameter.label} {parameter.metavar}" if parameter.names else parameter.label
                )
                raise self._error(f"missing {kind}: {name}")
            default: object = parameter.default
            return default
        if parameter.is_flag:
            return True
        if parameter.is_list:
            return [self._converted(parameter, text) for text in texts]
        return self._converted(parameter, texts[-1])

    def _converted(self, parameter: Parameter, text: str) -> object:
        try:
            return parameter.convert(text)
        except ValueError as error:
            hint = near_hint(text, parameter.choices) or self._see
            raise UsageError(f"{parameter.label}: {error}", hint=hint) from error

    def _error(self, message: str) -> UsageError:
        return UsageError(message, hint=self._see)


def _is_option(argument: str) -> bool:
    return argument[:1] == "-" and argument != "-"
