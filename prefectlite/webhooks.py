"""Send an HTTP request of a person's own making, by the standard library.

The block of custom webhooks calls it, in a delivery.
"""

from __future__ import annotations

import json
import re
import string
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prefectlite.message_delivery import UndeliveredError, one_line, refusal

_PLACEHOLDER = re.compile(r"{{\s*([^{}]+?)\s*}}")
_MESSAGE = {"subject": "{{subject}}", "body": "{{body}}"}
_METHODS_WITHOUT_DATA = {"GET", "DELETE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """An HTTP request, with ``{{names}}`` where values are to stand.

    Attributes:
        url: Of http or https; it may hold a user and a password.
        params: What is added to the URL's query.
        json_data: Any JSON. With None and no form, a request that could carry data, and has the message
            nowhere else, carries that: a subject and a body.
        form_data: Sent where there is no JSON.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    json_data: object
    form_data: Mapping[str, str] | None

    def names(self) -> set[str]:
        """Return the names that stand in it."""
        texts = [self.headers, self.params, self.json_data, self.form_data]
        return set(_PLACEHOLDER.findall(self.url + json.dumps(texts, ensure_ascii=False)))

    def filled(self, values: Mapping[str, str]) -> Request:
        """Return the request with values in the place of names; in the URL, percent-encoded."""
        encoded = {name: quote(value, safe="") for name, value in values.items()}
        url = urlsplit(_filled(self.url, encoded))
        query = "&".join(filter(None, (url.query, urlencode(_filled(self.params, values)))))
        headers = {"User-Agent": "prefectlite"}
        data, json_data = None, self.json_data
        if json_data is None and self._is_empty():
            json_data = _MESSAGE
        if json_data is not None:
            data = json.dumps(_filled(json_data, values)).encode()
            headers["Content-Type"] = "application/json"
        elif self.form_data is not None:
            data = urlencode(_filled(self.form_data, values)).encode()
        _, _, host = url.netloc.rpartition("@")
        if url.username is not None:
            login = f"{unquote(url.username)}:{unquote(url.password or '')}"
            headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        whole = url._replace(netloc=host, query=query, fragment="").geturl()
        # "%" is safe, so that what is encoded stays as it is.
        whole = quote(whole, safe=string.punctuation)
        request = Request(whole, data, headers, method=self.method)  # noqa: S310 - http, or https
        for name, value in _filled(self.headers, values).items():
            # http.client writes Latin-1: this way it writes the bytes of UTF-8.
            request.add_header(name, one_line(value).encode().decode("latin-1"))
        return request

    def _is_empty(self) -> bool:
        has_data = self.form_data is not None or self.method in _METHODS_WITHOUT_DATA
        return not has_data and self.names().isdisjoint(_MESSAGE)


def send_request(request: Request, *, timeout_seconds: float) -> None:
    """Send a request, and wait until it is answered with success.

    Raises:
        UndeliveredError: It was answered with anything else; a redirection is not followed.
        OSError: The host cannot be reached, or is not trusted.
        http.client.HTTPException: It is no HTTP that is spoken there.
    """
    try:
        build_opener(_NoRedirection).open(request, timeout=timeout_seconds).close()
    except HTTPError as error:
        error.close()
        raise UndeliveredError(*refusal(error.code)) from None


class _NoRedirection(HTTPRedirectHandler):
    """Follows none: a POST would become a GET, and arrive without its text."""

    def redirect_request(self, *_: object) -> None:
        return None


def _filled(value: Any, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON keeps its shape
    # Once: a body that has "{{token}}" in it is a text, and gets no secret.
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: values[found[1]], value)
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    return [_filled(each, values) for each in value] if isinstance(value, list) else value
