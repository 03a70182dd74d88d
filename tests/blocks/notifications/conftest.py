"""Real services on 127.0.0.1 for notification blocks, and what can be seen of a delivery.

Where apprise fixes the address of a service, nothing of it is changed: it goes through a real proxy,
with ``https_proxy``, whose tunnels end at a server that has a certificate for that address, of an
authority that ``REQUESTS_CA_BUNDLE`` names. So the URL, TLS, and the check of the certificate are real.
"""

import json
import logging
import ssl
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import trustme

from prefectlite.blocks.notifications import (
    MicrosoftTeamsWebhook,
    OpsgenieWebhook,
    PagerDutyWebHook,
    SlackWebhook,
    TwilioSMS,
)

SLACK = "https://hooks.slack.com/services/TPLANTED1/BPLANTED2/PLANTED3"
TEAMS = (
    "https://acme.logic.azure.com:443/workflows/PLANTED1/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=PLANTED2"
)
SERVICES = {
    "slack": lambda **more: SlackWebhook(url=SLACK, **more),
    "teams": lambda **more: MicrosoftTeamsWebhook(url=TEAMS, **more),
    "pagerduty": lambda **more: PagerDutyWebHook(
        integration_key="PLANTED1", api_key="PLANTED2", **more
    ),
    "opsgenie": lambda **more: OpsgenieWebhook(apikey="PLANTED1", **more),
    "twilio": lambda **more: TwilioSMS(
        account_sid="AC0123456789abcdef",
        auth_token="aPLANTEDa",
        from_phone_number="18001234567",
        to_phone_numbers=["18004242424"],
        **more,
    ),
}


@pytest.fixture
def service_block():
    """Make a block of a service, whose secrets are all planted."""
    return lambda name, **more: SERVICES[name](**more)


class Service:
    """An HTTP server that keeps what it is asked, and a proxy whose tunnels end in itself."""

    def __init__(self, context=None):
        self.requests, self.tunnels = [], []
        self.status, self.text, self.headers = 200, b"ok", {}
        self.behave = None
        self.released = threading.Event()  # what a slow answer waits for
        self.context = context
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append(
                    SimpleNamespace(
                        method=self.command, path=self.path, headers=self.headers, body=body
                    )
                )
                self.close_connection = True
                if service.behave is not None:
                    return service.behave(self)
                self.send_response(service.status)
                for name, value in {**service.headers, "Content-Length": len(service.text)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                return self.wfile.write(service.text)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - as http.server calls them

            def do_CONNECT(self):
                service.tunnels.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.request = service.context.wrap_socket(self.connection, server_side=True)
                super().finish()
                super().setup()
                self.handle_one_request()
                self.close_connection = True

            def finish(self):
                super().finish()
                self.request.close()

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def handle_error(self, *_):
                pass  # a client that does not trust it, or has gone

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def never_answer(self, _):
        """Wait until the test ends."""
        self.released.wait(40)

    def drip(self, handler):
        """Send a byte after the other, each in time for a socket, and never come to an end."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.released.wait(0.02):
            try:
                handler.wfile.write(b"X: y\r\n")
            except OSError:
                return

    def json(self):
        (request,) = self.requests
        return json.loads(request.body)

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority, its file, and the context of a server that has certificates for the services."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    domains = ("slack.com", "logic.azure.com", "pagerduty.com", "eu.pagerduty.com", "opsgenie.com")
    names = [f"*.{domain}" for domain in (*domains, "eu.opsgenie.com", "twilio.com")]
    authority.issue_cert(*names, "127.0.0.1").configure_cert(context)
    return SimpleNamespace(file=str(file), context=context)


@pytest.fixture
def proxied(authority, monkeypatch):
    """A proxy to the services at their own addresses; whoever asks for another host gets no TLS."""
    made = Service(authority.context)
    monkeypatch.setenv("https_proxy", made.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.file)
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    yield made
    made.close()


@pytest.fixture
def logged():
    """All that the program's handlers get to see, at the lowest level."""
    texts = []

    class Keep(logging.Handler):
        def emit(self, record):
            if not record.name.startswith("mail."):  # the SMTP server of the tests
                texts.append(f"{record.name} {record.getMessage()} {record.__dict__}")

    root, keep = logging.getLogger(), Keep()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(keep)
    yield texts
    root.removeHandler(keep)
    root.setLevel(before)


@pytest.fixture
def seen_of(logged, capfd):
    """Return whatever can be seen of an error, in words, frames, what is behind it, logs and output."""

    def see(error):
        texts, todo = [], [error]
        while todo:
            each = todo.pop()
            whole = traceback.TracebackException.from_exception(each, capture_locals=True)
            texts += [repr(each), str(each), repr(vars(each)), *whole.format()]
            todo += [behind for behind in (each.__cause__, each.__context__) if behind is not None]
        return "\n".join([*texts, *logged, *capfd.readouterr()])

    return see
