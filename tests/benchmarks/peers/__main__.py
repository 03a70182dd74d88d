"""Measure the peers that venvs hold beside prefectlite, and report it; see the package."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.peers import contenders, prefect_server
from tests.benchmarks.peers.contenders import OURS, PEERS, Contender, Venv, VenvError
from tests.benchmarks.peers.measures import MEASURES, Extent, Results, take_turns
from tests.benchmarks.peers.offline import go_offline
from tests.benchmarks.peers.prefect_server import Server, ServerError
from tests.benchmarks.peers.sheets import Sheet, document, markdown, table

_EXTENT = Extent(rounds=5)
_QUICK = Extent(rounds=1, tasks=50, flows=3, mapped=200)
#: Found by no column of it: the server is a process of its own, and is asked once, at the end.
_SERVER_ROW = ("server", "prefect-server")


def main() -> int:
    """Measure what is there, and return the exit code: 1 where something failed or is not there."""
    arguments = _arguments()
    try:
        found = _found(arguments.venv)
    except VenvError as error:
        _say(f"error: {error}")
        return 2
    chosen, missing = _chosen(found, arguments.peer)
    for name in missing:
        _say(f"NOT THERE: {name} is in none of these venvs; to add it: DIR/bin/pip install {name}")
    if not chosen:
        _say("error: there is no peer to measure")
        return 1
    extent = _QUICK if arguments.quick else _EXTENT
    extent = replace(extent, rounds=arguments.rounds or extent.rounds)
    is_offline = go_offline()
    if not is_offline:
        _say("NOT CUT OFF: the network stays, as this system has no network namespaces for you")
    # As Ctrl-C does, so that Prefect's server ends, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sheet = _measured(chosen, extent, is_offline=is_offline)
    except ServerError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    sys.stdout.write(markdown(sheet) if arguments.markdown else table(sheet))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(sheet), indent=2) + "\n", encoding="utf-8")
    return 1 if sheet.results.failures or (arguments.peer and missing) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        description="Compare prefectlite with the peers that venvs hold, in turns.",
        epilog="example: python -m tests.benchmarks.peers --venv /tmp/prefect --venv /tmp/dbos",
    )
    parser.add_argument(
        "--venv",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a venv with one peer or more; the first that has one counts; may be repeated",
    )
    parser.add_argument(
        "--peer", choices=PEERS, action="append", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help=f"turns of each; {_EXTENT.rounds}"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes and one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    parser.add_argument("--markdown", action="store_true", help="print the table for the README")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _found(folders: Sequence[Path]) -> dict[str, Venv]:
    """Return the venv of each peer that is in one."""
    found: dict[str, Venv] = {}
    for folder in folders:
        venv = contenders.look_into(folder)
        here = ", ".join(f"{name} {version}" for name, version in venv.versions.items())
        _say(f"{folder}: {here or 'no peer'}")
        for name in venv.versions:
            found.setdefault(name, venv)
    return found


def _chosen(
    found: dict[str, Venv], wanted: Sequence[str] | None
) -> tuple[dict[str, Venv], list[str]]:
    """Return the peers to measure, and the names of those that are not there."""
    names = [name for name in PEERS if wanted is None or name in wanted]
    return {name: found[name] for name in names if name in found}, [
        name for name in names if name not in found
    ]


def _measured(venvs: dict[str, Venv], extent: Extent, *, is_offline: bool) -> Sheet:
    with (
        tempfile.TemporaryDirectory(
            prefix="prefectlite-benchmark-", ignore_cleanup_errors=True
        ) as folder,
        ExitStack() as stack,
    ):
        home = Path(folder)
        taking_part, server = [contenders.ours(home)], None
        if "prefect" in venvs:
            server = stack.enter_context(_prefect_server(venvs["prefect"], home))
            taking_part.append(contenders.prefect(venvs["prefect"], home, server.url))
            taking_part.append(contenders.prefect(venvs["prefect"], home, None))
        others: dict[str, Callable[[Venv, Path], Contender]] = {
            "dbos": contenders.dbos,
            "luigi": contenders.luigi,
        }
        taking_part += [make(venvs[name], home) for name, make in others.items() if name in venvs]
        results = take_turns(taking_part, [*MEASURES.values()], extent)
        if server is not None:
            _add_server(results, server)
        return Sheet(taking_part, results, extent, is_offline, _command())


@contextmanager
def _prefect_server(venv: Venv, home: Path) -> Iterator[Server]:
    server_home = home / "server"
    server_home.mkdir()
    _say("starting Prefect's server")
    setting_up = replace(contenders.prefect(venv, home, None), home=server_home)
    environment = {**setting_up.environment(), "PREFECT_HOME": str(server_home)}
    with prefect_server.running(venv.python, environment, server_home) as server:
        yield server


def _add_server(results: Results, server: Server) -> None:
    """Put the server's memory where the process of a flow could only say that it has started none."""
    if _SERVER_ROW not in results.failures and _SERVER_ROW in results.values:
        results.values[_SERVER_ROW] = [float(server.peak_bytes())]
        results.values["server", OURS] = [0.0]


def _command() -> str:
    return " ".join(["python -m tests.benchmarks.peers", *sys.argv[1:]])


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
