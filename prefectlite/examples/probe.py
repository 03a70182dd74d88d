"""See which network addresses answer, all at the same time: an async flow.

::

    prefectlite run prefectlite.examples.probe -p 'addresses=["127.0.0.1:22", "[::1]:80"]'

Without addresses it opens three ports of this machine for itself: one that answers, one that answers
late, and one that never does, which shows a timeout that is retried.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from prefectlite import flow, task

_LATE_SECONDS = 0.2


@task(timeout_seconds=1, retries=1, task_run_name="probe {address}")
async def probe(address: str) -> str:
    """Connect to an address and return the first line that it sends."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        return (await reader.readline()).decode(errors="replace").strip()
    finally:
        writer.close()


@flow(log_prints=True)
async def probe_all(addresses: list[str] | None = None) -> dict[str, str]:
    """Probe addresses at the same time; return what each sent, or how it failed.

    Args:
        addresses: Each as ``host:port``; None for three of this machine's own.
    """
    async with AsyncExitStack() as stack:
        if addresses is None:
            addresses = [await _listen(stack, delay) for delay in (0, _LATE_SECONDS, None)]
        futures = await probe.map(addresses)
        for future in futures:
            await future.wait()
    answers = {}
    for address, future in zip(addresses, futures, strict=True):
        state = future.get_state()
        answers[address] = str(state.result()) if state.is_completed() else state.name
        print(f"{address}: {answers[address]}")
    return answers


async def _listen(stack: AsyncExitStack, delay_seconds: float | None) -> str:
    """Open a port of this machine that answers after a delay; None is never."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if delay_seconds is None:
            await reader.read()
        else:
            await asyncio.sleep(delay_seconds)
            writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    await stack.enter_async_context(server)
    host, port = server.sockets[0].getsockname()
    return f"{host}:{port}"


if __name__ == "__main__":
    asyncio.run(probe_all())
