"""One delivery of a message to a service: in its time, and with a failure told without secrets.

Blocks that notify use it. Libraries and servers quote URLs, tokens and headers in what they raise,
log and answer; so nothing of that may leave a delivery. What does is in words of this module.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

#: The libraries that log what they are given: these loggers, and those below.
_TALKATIVE = ("apprise", "charset_normalizer", "requests", "urllib3")


class Failure(NamedTuple):
    """Why a delivery failed, and what to do: words for a person, and nothing secret.

    Attributes:
        hint: ``{trust}`` in it stands for how to have a certificate trusted.
    """

    reason: str
    hint: str


class UndeliveredError(Exception):
    """Ends a delivery; its arguments are those of a ``Failure``. It is never seen outside of one."""


LATE = Failure("it did not answer in time", "try again later, or give the block more seconds")
_UNTRUSTED = Failure("its certificate is not trusted", "{trust}")
_NO_HOST = Failure("there is no such host", "check the name, and this machine's DNS")
# requests says "unable to connect to proxy" of whatever goes wrong behind one: the rest tells more.
_WHERE = "check the host and the port, and https_proxy if you have set it"
_CLOSED = Failure("it closed the connection", _WHERE)
# What an error of a socket, of TLS or of a proxy says, in small letters; the first that fits counts.
_FAULTS = {
    "certificate verify failed": _UNTRUSTED,
    "certificate_verify_failed": _UNTRUSTED,
    "tunnel connection failed": Failure("the proxy refuses", "check https_proxy and http_proxy"),
    "failed to resolve": _NO_HOST,
    "name resolution": _NO_HOST,
    "name or service not known": _NO_HOST,
    "nodename nor servname": _NO_HOST,
    "no address associated": _NO_HOST,
    "connection refused": Failure("the connection was refused", _WHERE),
    "timed out": LATE,
    "closed connection": _CLOSED,
    "connection unexpectedly closed": _CLOSED,
    "reset by peer": _CLOSED,
    "broken pipe": _CLOSED,
    "[ssl": Failure("it does not speak TLS there", "check the port, and whether it is to be TLS"),
    "unreachable": Failure("its network cannot be reached", "check this machine's network"),
}
_STATUS_HINTS = {
    200: "that is no answer of this service: check the URL",
    401: "check the credentials of the block",
    403: "check the credentials of the block",
    404: "it may have been deleted there: check the URL and the credentials",
    410: "it may have been deleted there: make a new one",
    413: "the text is too long for it",
    429: "it has had too many notifications; try again later",
}
_STATUS_CLASS_HINTS = {
    3: "it has moved: give the block the new URL",
    4: "it does not take such a notification: check the fields of the block",
    5: "the service has a fault; try again later",
}


def refusal(status: int) -> Failure:
    """Return the failure that an HTTP status means."""
    hint = _STATUS_HINTS.get(status) or _STATUS_CLASS_HINTS.get(status // 100, "check the URL")
    return Failure(f"it answered with HTTP status {status}", hint)


def fault(text: str, kind: str = "") -> Failure:
    """Return the failure that the text of a library's error means.

    Args:
        text: It is compared, and never quoted.
        kind: The name of the error's class: what is told where the text is not known.
    """
    known = next((failure for part, failure in _FAULTS.items() if part in text.lower()), None)
    return known or Failure(f"it failed{kind and f' with {kind}'}", "check the fields of the block")


def encodable(text: str) -> str:
    """Replace what UTF-8 has no bytes for, such as half of a surrogate pair of a file's name."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """Return a text without line breaks or controls: in a header, one would begin the next header."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


class Delivery(threading.Thread):
    """Sends one message, and keeps why it could not.

    A thread, since nothing else bounds the lookup of a name, or a server that sends a byte a second;
    a daemon, since one that is stuck must not keep the program.

    Attributes:
        failure: None for one that has succeeded, or goes on.
    """

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__(name="prefectlite-delivery", daemon=True)
        self._send = send
        self.failure: Failure | None = None

    def run(self) -> None:
        """Send it; whatever is raised ends here, as its text and its frames hold secrets."""
        try:
            self._send()
        except UndeliveredError as error:
            self.failure = Failure(*error.args)
        except Exception as error:  # noqa: BLE001 - any error of a library may quote a secret
            self.failure = fault(str(error), type(error).__name__)


def hush_libraries() -> None:
    """Have the libraries log nothing of deliveries, and all the rest as before.

    The filters stay: to take one off while another thread logs could let that one's record through.
    A library that makes more loggers when it is imported needs it once more.
    """
    for name in (*_TALKATIVE, *logging.root.manager.loggerDict):
        if name.partition(".")[0] in _TALKATIVE:
            logging.getLogger(name).addFilter(_is_of_no_delivery)


def _is_of_no_delivery(record: logging.LogRecord) -> bool:  # noqa: ARG001 - what a filter is given
    return not isinstance(threading.current_thread(), Delivery)
