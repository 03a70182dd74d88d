"""The entry point: ``prefectlite`` and ``python -m prefectlite``.

It answers ``--version`` by itself, without any import, hands to ``completion`` what a shell asks at TAB,
and everything else to ``cli``.
"""

from __future__ import annotations

import sys

from prefectlite import __version__

_INTERRUPTED = 130


def main() -> int:
    """Run the command of this process's arguments and return its exit code."""
    arguments = sys.argv[1:]
    try:
        if arguments == ["--version"]:
            try:
                sys.stdout.write(f"prefectlite {__version__}\n")
                sys.stdout.flush()
            except (AttributeError, OSError):
                pass  # a stdout that is closed or full: the long way knows what to say
            else:
                return 0
        if arguments[:1] == ["__complete"]:
            from prefectlite.completion import answer

            return answer(arguments[1:])
        from prefectlite.cli import main as run_command_line

        return run_command_line(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
