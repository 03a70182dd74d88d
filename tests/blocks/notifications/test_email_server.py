"""Mail through real SMTP servers on 127.0.0.1: in the clear, with STARTTLS and with TLS."""

import asyncio
import email
import socket
import threading
from email.policy import default
from types import SimpleNamespace

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from pydantic import ValidationError

from prefectlite.blocks.notifications import EmailServer
from prefectlite.errors import NotificationError

SECRET = "aPLANTEDa"
# aiosmtpd warns of servers that let passwords travel in the clear; this is what is tested.
IN_THE_CLEAR = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


class MailServer:
    """An SMTP server that keeps its mails, and refuses addresses that say so."""

    def __init__(self, *, ssl_context=None, **options):
        self.mails, self.logins = [], []
        self.options = {"hostname": "localhost", "enable_SMTPUTF8": True, **options}
        self.ssl_context = ssl_context
        started = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve(started)))
        self.thread.start()
        assert started.wait(40)

    async def serve(self, started):
        self.loop, self.stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await self.loop.create_server(
            lambda: SMTP(self, loop=self.loop, **self.options),
            "127.0.0.1",
            0,
            ssl=self.ssl_context,
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self.stopped.wait()
        server.close()
        await server.wait_closed()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def close(self):
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join()

    def authenticate(self, server, session, envelope, mechanism, data):
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == SECRET.encode(), handled=False)

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's
        if "refused" in address:
            return f"550 {address} {SECRET} may not"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's
        if "refused" in address:
            return f"550 no such {address} {SECRET}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's
        message = email.message_from_bytes(envelope.content, policy=default)
        if "refuse this" in message.get_content():
            return f"554 {SECRET} is spam"
        self.mails.append(
            SimpleNamespace(
                sender=envelope.mail_from,
                recipients=envelope.rcpt_tos,
                encrypted=session.ssl is not None,
                message=message,
            )
        )
        return "250 OK"


@pytest.fixture
def mail_server():
    """Start a server; ``login`` has it want one."""
    started = []

    def start(*, login=False, **options):
        def authenticate(*given):
            return started[0].authenticate(*given)

        if login:
            options |= {"auth_required": True, "authenticator": authenticate}
        started.append(MailServer(**options))
        return started[0]

    yield start
    for each in started:
        each.close()


def block_of(server, **more):
    fields = {"sender": "flows@example.com", "recipients": ["ann@example.com"], **more}
    return EmailServer(host="127.0.0.1", port=server.port, **fields)


def test_a_mail_has_what_a_mail_needs_and_headers_that_nothing_can_be_put_into(mail_server):
    server = mail_server()
    block = block_of(server, security="none", recipients=["ann@example.com", "bob@example.com"])
    block.notify("Zeile ✗\n.\n" + "x" * 2000 + "\n", "Lauf ✗\r\nBcc: eve@example.com")
    (mail,) = server.mails
    assert (mail.sender, mail.encrypted) == ("flows@example.com", False)
    assert mail.recipients == ["ann@example.com", "bob@example.com"]
    message = mail.message
    assert message["Subject"] == "Lauf ✗ Bcc: eve@example.com"
    assert (message["From"], message["To"]) == (
        "flows@example.com",
        "ann@example.com, bob@example.com",
    )
    assert message["Bcc"] is None
    assert message["Date"].datetime.utcoffset() is not None
    assert message["Message-ID"].endswith("@example.com>")
    assert message.get_content().splitlines() == ["Zeile ✗", ".", "x" * 2000]


def test_a_mail_without_a_subject_gets_the_beginning_of_its_text(mail_server):
    server = mail_server()
    block_of(server, security="none").notify("Der Lauf\nwartet " + "✗" * 100)
    assert server.mails[0].message["Subject"] == ("Der Lauf wartet " + "✗" * 100)[:78]


@IN_THE_CLEAR
@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_a_mail_and_its_login_travel_encrypted(mail_server, authority, security):
    context = authority.context
    tls = {"tls_context": context, "require_starttls": True}
    # aiosmtpd knows of no TLS that was there before it.
    options = {"ssl_context": context, "auth_require_tls": False} if security == "ssl" else tls
    server = mail_server(login=True, **options)
    login = {"username": "flows", "password": SECRET, "ca_file": authority.file}
    block_of(server, security=security, **login).notify("hello")
    assert server.logins == [(b"flows", SECRET.encode())]
    assert len(server.mails) == 1
    assert security == "ssl" or server.mails[0].encrypted


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_a_server_that_is_not_trusted_gets_neither_login_nor_mail(mail_server, authority, security):
    context = authority.context
    server = mail_server(**{"ssl_context" if security == "ssl" else "tls_context": context})
    block = block_of(server, security=security, username="flows", password=SECRET)
    with pytest.raises(NotificationError, match="certificate is not trusted") as caught:
        block.notify("hello")
    assert "ca_file" in caught.value.hint
    assert server.logins == server.mails == []


@IN_THE_CLEAR
def test_a_server_without_starttls_gets_neither_login_nor_mail(mail_server):
    server = mail_server(login=True, auth_require_tls=False)
    with pytest.raises(NotificationError, match="does not offer STARTTLS"):
        block_of(server, username="flows", password=SECRET).notify("hello")
    assert server.logins == server.mails == []


REFUSALS = [
    ({"recipients": ["refused@example.com"]}, "hello", r"refused refused@example.com \(550\)$"),
    (
        {"recipients": ["refused@example.com", "ann@example.com"]},
        "hello",
        r"refused refused@example.com \(550\); the others have it$",
    ),
    ({"sender": "refused@example.com"}, "hello", r"refused the sender \(550\)$"),
    ({}, "refuse this", "refused with code 554$"),
    ({"password": "wrong" + SECRET}, "hello", "refused with code 535$"),
    ({"username": None, "password": None}, "hello", r"refused the sender \(530\)$"),
]


@IN_THE_CLEAR
@pytest.mark.parametrize(("more", "body", "told"), REFUSALS)
def test_what_the_server_refuses_is_told_and_shows_nothing_secret(
    mail_server, seen_of, more, body, told
):
    server = mail_server(login=True, auth_require_tls=False)
    fields = {"security": "none", "username": "flows", "password": SECRET, **more}
    block = block_of(server, **fields)
    with pytest.raises(NotificationError, match=f"127.0.0.1:{server.port}: it {told}") as caught:
        block.notify(body)
    assert caught.value.hint
    del fields, more  # of which the secret would be seen
    seen = seen_of(caught.value) + repr(block)
    assert SECRET not in seen
    assert len(server.mails) == ("others" in told)


def test_a_server_that_says_nothing_or_hangs_up_is_an_error():
    def hang_up():
        listening.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = SimpleNamespace(port=listening.getsockname()[1])
        with pytest.raises(NotificationError, match="in time"):
            block_of(server, timeout_seconds=0.3).notify("hello")
        hang_up()  # on the one that has given up
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NotificationError, match="closed"):
            block_of(server).notify("hello")
        thread.join()


def test_a_ca_file_that_cannot_be_read_is_named(mail_server, tmp_path):
    server = mail_server()
    for file in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").touch()
        with pytest.raises(NotificationError, match=file.name):
            block_of(server, ca_file=file).notify("hello")


@pytest.mark.parametrize(
    "fields",
    [
        {"sender": "a@example.com\r\nBcc: b@example.com"},
        {"sender": "nobody"},
        {"recipients": []},
        {"recipients": ["a@example.com, b@example.com"]},
        {"security": "tls"},
        {"port": 0},
    ],
)
def test_addresses_and_fields_that_are_none_are_refused(fields):
    given = {"host": "h", "sender": "a@example.com", "recipients": ["b@example.com"], **fields}
    with pytest.raises(ValidationError):
        EmailServer(**given)


def test_the_port_follows_from_the_security():
    for security, port in (("none", 25), ("starttls", 587), ("ssl", 465)):
        block = EmailServer(
            host="127.0.0.1", sender="a@b.c", recipients=["a@b.c"], security=security
        )
        assert block._place() == f"127.0.0.1:{port}"
