"""What is sent through apprise: which plugin for which URL, and why one has failed.

Notification blocks call it, in a delivery. apprise is an extra, and is imported here alone, and by
the blocks where they make their plugins. It says why something failed only to its log, where it also
writes URLs and tokens; so each plugin gets a log of its own, that nobody else hears.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from prefectlite.message_delivery import Failure, UndeliveredError, fault, hush_libraries, refusal

#: A plugin of apprise, whose classes are typed here and there.
Plugin: TypeAlias = Any

_HIGHEST_STATUS = 599


def send_through(
    make_plugin: Callable[[object], Plugin], message: dict[str, str], *, timeout_seconds: float
) -> None:
    """Make a plugin and send a message through it, in the thread of a delivery.

    Args:
        make_plugin: Is given apprise's asset, and returns a plugin of apprise.
        message: What ``notify`` of the plugin takes. A text that is too long is cut.
        timeout_seconds: For a connection, and for each answer.

    Raises:
        UndeliveredError: It was not sent, or not to all.
    """
    hush_libraries()
    try:
        from apprise import AppriseAsset
        from apprise.exception import AppriseImproperlyConfigured
    except ImportError:
        hint = "pip install 'prefectlite[notifications]'"
        raise UndeliveredError("the library apprise is needed", hint) from None
    asset = AppriseAsset(app_id="prefectlite", app_desc="prefectlite", app_url="")
    try:
        plugin = make_plugin(asset)
    except AppriseImproperlyConfigured:
        reason = "apprise does not take the fields of the block"
        raise UndeliveredError(reason, "check them against what the service gave you") from None
    hush_libraries()  # again: the imports have made more loggers
    said = _Said()
    # Of no hierarchy, and at its lowest level whatever the program logs.
    plugin.logger = logging.Logger("apprise", logging.DEBUG)  # noqa: LOG001 - nobody is to get at it
    plugin.logger.addHandler(said)
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_seconds
    # A POST that is redirected becomes a GET: it would arrive without its text.
    plugin.redirects = False
    # apprise's pause between two requests, 5.5 s for some services, would use up the time.
    plugin.request_rate_per_sec = 0
    if not plugin.notify(**message, overflow="truncate"):
        raise UndeliveredError(*said.failure())


def plugin_of_url(class_: Any, url: str, asset: object) -> Plugin:  # noqa: ANN401 - a class of apprise's
    """Return the plugin for a webhook's URL: of a class, where that is its service's own."""
    given = class_.parse_native_url(url)
    if not given:
        return _posting_text(url, asset)
    return class_(**{**given, "include_image": False, "asset": asset})


def _posting_text(url: str, asset: object) -> Plugin:
    """Return a plugin that posts ``{"text": ...}`` to a URL, as all that is like Slack takes it."""
    from apprise.plugins.custom_json import NotifyJSON

    parts = urlsplit(url)
    host = parts.hostname or ""
    plugin = NotifyJSON(  # type: ignore[no-untyped-call] # apprise's
        host=f"[{host}]" if ":" in host else host,
        port=parts.port,
        secure=parts.scheme == "https",
        user=parts.username,
        password=parts.password,
        fullpath=(parts.path or "/") + (parts.query and f"?{parts.query}"),
        payload={"message": "text"}
        | dict.fromkeys(("version", "title", "attachments", "type"), ""),
        asset=asset,
    )
    plugin.title_maxlen = 0  # the subject comes first in the text
    return plugin


class _Said(logging.Handler):
    """Keeps what a plugin says of its failure."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.exceptions: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.warnings.append(text)
        elif text.startswith("Socket Exception: "):
            self.exceptions.append(text)

    def failure(self) -> Failure:
        """Return why it failed."""
        for warning in self.warnings:
            # At its end: what the server says may come before.
            if found := re.search(r"error=(\d+)\.?$", warning):
                code = int(found[1])
                if code <= _HIGHEST_STATUS:
                    return refusal(code)
                # Twilio's own, which apprise shows in its place.
                return Failure(f"it refused with its error {code}", "look that number up there")
        return fault("\n".join(self.exceptions))
