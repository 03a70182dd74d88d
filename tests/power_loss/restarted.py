"""prefectlite as it is after a restart of the machine: ``python -m tests.power_loss.restarted COMMAND``."""

from __future__ import annotations

import sys

from prefectlite import liveness
from prefectlite.__main__ import main

_BOOT_ID = "00000000-0000-4000-8000-000000000000"


def restart() -> None:
    """Have this process believe that the machine was started again since."""
    liveness._boot_id = lambda: _BOOT_ID  # type: ignore[assignment]  # a function with a cache


if __name__ == "__main__":
    restart()
    sys.exit(main())
