"""Blocks that tell people: in a chat, on a pager, a phone, by mail, or through any webhook.

Flows call ``notify``, and so does whoever delivers notifications of states. apprise (the extra
``notifications``) speaks to the chat, pager and phone services; the standard library sends mail and
plain webhooks. No secret leaves this module but to the service that it is for: a failure is told in
words of our own, never in those of a library or a server, which quote URLs.
"""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, AnyHttpUrl, Field, JsonValue, SecretStr, model_validator

from prefectlite.apprise_plugins import Plugin, plugin_of_url, send_through
from prefectlite.blocks import Block
from prefectlite.errors import NotificationError, UsageError
from prefectlite.message_delivery import LATE, Delivery, UndeliveredError, encodable, one_line

if TYPE_CHECKING:
    from prefectlite.webhooks import WebRequest

__all__ = [
    "CustomWebhook",
    "EmailServer",
    "MattermostWebhook",
    "MicrosoftTeamsWebhook",
    "NotificationBlock",
    "OpsgenieWebhook",
    "PagerDutyWebHook",
    "SlackWebhook",
    "TwilioSMS",
]

# What Twilio takes; apprise would cut at 160, and the command to resume a run might be what is lost.
_SMS_CHARACTERS = 1600
_SMTP_PORTS = {"none": 25, "starttls": 587, "ssl": 465}


class NotificationBlock(Block):
    """A way to tell people something.

    Attributes:
        timeout_seconds: How long a delivery may take, from the lookup of the name to the last
            answer. One that takes longer has failed, though the service may have it.
    """

    # What to do about a certificate that is not trusted.
    _trust: ClassVar[str] = "if its authority is your own, name that one's file in SSL_CERT_FILE"

    timeout_seconds: float = Field(default=10.0, gt=0, le=3600)

    def notify(self, body: str, subject: str | None = None) -> None:
        """Send a notification, and wait until the service has taken it.

        In the code of a coroutine it is to be awaited, and does not block the loop (Prefect 2.8
        behaviour). A text that is too long for the service is cut at its end: one notification is
        one message, as some pages a person, and some costs money.

        Args:
            body: The text. Chats read it with their own markup.
            subject: A title, on one line. Where the service has none, it is the text's first line.

        Raises:
            NotificationError: The service has not taken it, or one of several recipients has not.
            UsageError: There is no text.
        """
        delivery = self._start(body, subject)
        caller = sys._getframe(1)  # noqa: SLF001 - nothing else tells who is to await from who is not
        if caller.f_code.co_flags & inspect.CO_COROUTINE:
            return self._settle_on_loop(delivery)  # type: ignore[return-value] # to be awaited
        delivery.join(self.timeout_seconds)
        return self._settle(delivery)

    async def anotify(self, body: str, subject: str | None = None) -> None:
        """Send a notification as ``notify`` does, while the loop goes on."""
        await self._settle_on_loop(self._start(body, subject))

    @abstractmethod
    def _place(self) -> str:
        """Return what is notified, for an error: a service or a host, and nothing secret."""

    @abstractmethod
    def _send(self, body: str, subject: str) -> None:
        """Send a text that is not empty, in the thread of a delivery; the subject is one line."""

    def _start(self, body: str, subject: str | None) -> Delivery:
        subject = one_line(encodable(subject or ""))
        body = encodable(body) or subject
        if not body.strip():
            raise UsageError("there is nothing to notify", hint="give a body")
        delivery = Delivery(lambda: self._send(body, subject))
        delivery.start()
        return delivery

    async def _settle_on_loop(self, delivery: Delivery) -> None:
        import asyncio

        await asyncio.to_thread(delivery.join, self.timeout_seconds)
        self._settle(delivery)

    def _settle(self, delivery: Delivery) -> None:
        failure = LATE if delivery.is_alive() else delivery.failure
        if failure is not None:
            kind, name = self.get_block_type_slug(), self._block_document_name
            raise NotificationError(
                f"block {kind}{'' if name is None else f'/{name}'} did not notify {self._place()}: "
                f"{failure.reason}",
                hint=failure.hint.format(trust=self._trust),
            )


def _http_url(url: SecretStr) -> SecretStr:
    """Check a URL, placeholders included."""
    try:
        parts = urlsplit(url.get_secret_value())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("a URL that begins with http:// or https:// and a host is needed")
    return url


_WebhookUrl = Annotated[SecretStr, AfterValidator(_http_url)]


def _host(url: SecretStr) -> str:
    return urlsplit(url.get_secret_value()).netloc.rpartition("@")[2]


class _AppriseBlock(NotificationBlock):
    """A block that apprise delivers; a subclass makes the plugin.

    Attributes:
        notify_type: Of what kind it is, for services that show or weigh it.
    """

    _trust: ClassVar[str] = (
        "if its authority is your own, name that one's file in REQUESTS_CA_BUNDLE"
    )

    notify_type: Literal["info", "success", "warning", "failure"] = "info"

    @abstractmethod
    def _plugin(self, asset: object) -> Plugin:
        """Return apprise's plugin for the service."""

    def _send(self, body: str, subject: str) -> None:
        message = {"body": body, "title": subject, "notify_type": self.notify_type}
        send_through(self._plugin, message, timeout_seconds=self.timeout_seconds)


class SlackWebhook(_AppriseBlock):
    """An incoming webhook of Slack, or of what is compatible with it, such as Rocket.Chat.

    Attributes:
        url: Of ``hooks.slack.com``, or of any other host: that gets ``{"text": ...}``.
    """

    _block_type_slug = "slack-webhook"

    url: _WebhookUrl

    def _place(self) -> str:
        return _host(self.url)

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.slack import NotifySlack

        return plugin_of_url(NotifySlack, self.url.get_secret_value(), asset)


class MicrosoftTeamsWebhook(_AppriseBlock):
    """A webhook of a Teams workflow.

    Attributes:
        url: As Teams gives it, with ``/workflows/`` in it, of any host: that gets an adaptive card.
            Any other URL gets ``{"text": ...}``, as the connectors took that Microsoft has retired.
    """

    _block_type_slug = "ms-teams-webhook"

    url: _WebhookUrl

    def _place(self) -> str:
        return _host(self.url)

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.workflows import NotifyWorkflows

        return plugin_of_url(NotifyWorkflows, self.url.get_secret_value(), asset)


class MattermostWebhook(_AppriseBlock):
    """An incoming webhook of a Mattermost server.

    Attributes:
        hostname: The server's, without scheme or port.
        token: What follows ``/hooks/`` in the webhook's URL.
        botname: Who the message is from, where the server lets webhooks say it.
        channels: Instead of the webhook's own channel.
        include_image: Show an icon of the kind of the message.
        path: Where Mattermost is not at the server's top.
        port: 8065 is Mattermost's own; behind a proxy it is 443 as a rule.
        secure: Speak TLS. Prefect 2.8 cannot; without it the token travels in the clear.
    """

    _block_type_slug = "mattermost-webhook"

    hostname: str = Field(pattern=r"^[\w.-]+$")
    token: SecretStr = Field(min_length=1)
    botname: str | None = None
    channels: list[Annotated[str, Field(pattern=r"^#?[\w-]+$")]] | None = None
    include_image: bool = False
    path: str | None = None
    port: int = Field(default=8065, ge=1, le=65535)
    secure: bool = False

    def _place(self) -> str:
        return f"{self.hostname}:{self.port}"

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.mattermost import NotifyMattermost

        return NotifyMattermost(
            token=quote(self.token.get_secret_value(), safe=""),
            fullpath="/" + self.path.strip("/") if self.path else None,
            targets=self.channels,
            include_image=self.include_image,
            host=self.hostname,
            port=self.port,
            user=self.botname,
            secure=self.secure,
            asset=asset,
        )


class PagerDutyWebHook(_AppriseBlock):
    """PagerDuty's Events API v2; each notification triggers an alert.

    Attributes:
        integration_key: The service's, also called the routing key.
        api_key: One of the account's.
        notify_type: Becomes the severity: info, info, warning or critical.
        source, component, group, class_id: What the alert is about, as PagerDuty sorts it.
        region_name: Where the account is.
        clickable_url: Where a click on the alert leads.
        include_image: Show an icon of the kind of the message.
        custom_details: More to show with the alert.
    """

    _block_type_slug = "pager-duty-webhook"

    integration_key: SecretStr = Field(min_length=1)
    api_key: SecretStr = Field(min_length=1)
    source: str | None = "prefectlite"
    component: str = "Notification"
    group: str | None = None
    class_id: str | None = None
    region_name: Literal["us", "eu"] = "us"
    clickable_url: AnyHttpUrl | None = None
    include_image: bool = True
    custom_details: dict[str, str] | None = None

    def _place(self) -> str:
        return "PagerDuty"

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.pagerduty import NotifyPagerDuty

        return NotifyPagerDuty(
            apikey=self.api_key.get_secret_value(),
            integrationkey=self.integration_key.get_secret_value(),
            source=self.source,
            component=self.component,
            group=self.group,
            class_id=self.class_id,
            region_name=self.region_name,
            click=None if self.clickable_url is None else str(self.clickable_url),
            include_image=self.include_image,
            details=self.custom_details,
            asset=asset,
        )


class OpsgenieWebhook(_AppriseBlock):
    """Opsgenie's alerts; each notification makes a new one.

    Attributes:
        apikey: Of an integration of the kind API.
        target_user, target_team, target_schedule, target_escalation: Who is told: names or ids. The
            rules of Opsgenie decide where there are none.
        region_name: Where the account is.
        batch: One alert for up to 50 of them, not one for each.
        tags, alias, entity, details: As Opsgenie shows and sorts the alert.
        priority: 1 to 5, which Opsgenie calls P1 (critical) to P5 (for information).
    """

    _block_type_slug = "opsgenie-webhook"

    apikey: SecretStr = Field(min_length=1)
    target_user: list[str] | None = None
    target_team: list[str] | None = None
    target_schedule: list[str] | None = None
    target_escalation: list[str] | None = None
    region_name: Literal["us", "eu"] = "us"
    batch: bool = False
    tags: list[str] | None = None
    priority: int = Field(default=3, ge=1, le=5)
    alias: str | None = None
    entity: str | None = None
    details: dict[str, str] | None = None

    def _place(self) -> str:
        return "Opsgenie"

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.opsgenie import NotifyOpsgenie

        kinds = {
            "@": self.target_user,
            "#": self.target_team,
            "*": self.target_schedule,
            "^": self.target_escalation,
        }
        return NotifyOpsgenie(  # type: ignore[no-untyped-call] # apprise's
            apikey=self.apikey.get_secret_value(),
            targets=[f"{kind}{name}" for kind, names in kinds.items() for name in names or ()],
            region_name=self.region_name,
            details=self.details,
            priority=self.priority,
            alias=self.alias,
            entity=self.entity,
            batch=self.batch,
            tags=self.tags,
            # apprise else adds a note to an earlier alert, and is content when there is none.
            action="new",
            asset=asset,
        )


_PhoneNumber = Annotated[str, Field(pattern=r"^(whatsapp:)?\+?[0-9][0-9 ().-]{3,}$")]


class TwilioSMS(_AppriseBlock):
    """Text messages through Twilio.

    Attributes:
        account_sid: Of Twilio's console; it begins with AC.
        auth_token: Beside it there.
        from_phone_number: The account's, with the country's code, such as 18001234567.
        to_phone_numbers: To whom. Where one of them is refused, the others may have their message.
    """

    _block_type_slug = "twilio-sms"

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]+$")
    auth_token: SecretStr = Field(min_length=1)
    from_phone_number: _PhoneNumber
    to_phone_numbers: list[_PhoneNumber] = Field(min_length=1)

    def _place(self) -> str:
        return "Twilio"

    def _plugin(self, asset: object) -> Plugin:
        from apprise.plugins.twilio import NotifyTwilio

        plugin = NotifyTwilio(  # type: ignore[no-untyped-call] # apprise's
            account_sid=self.account_sid,
            auth_token=self.auth_token.get_secret_value(),
            source=self.from_phone_number,
            targets=self.to_phone_numbers,
            asset=asset,
        )
        plugin.body_sms_maxlen = _SMS_CHARACTERS
        # apprise leaves out what it takes for no number, and writes to the sender if none is left.
        if len(plugin.targets) != len(self.to_phone_numbers):
            raise UndeliveredError("to_phone_numbers has what is no phone number", "correct it")
        return plugin


class CustomWebhook(NotificationBlock):
    """An HTTP request of your own making; it needs no extra.

    ``{{subject}}``, ``{{body}}``, ``{{name}}`` and ``{{the name of a secret}}`` stand for these in the
    URL, and in the texts of headers, params, json_data and form_data; in the URL, percent-encoded.

    Attributes:
        name: What ``{{name}}`` stands for.
        url: It may hold a user and a password: ``https://user:password@host/``.
        headers: What is put into them ends up on one line.
        params: What follows ``?`` in the URL.
        method: The HTTP method.
        json_data: Sent as JSON. With neither this nor ``form_data``, and no ``{{subject}}`` or ``{{body}}``
            elsewhere, ``{"subject": ..., "body": ...}`` is, unless the method is GET or DELETE.
        form_data: Sent as a form.
        secrets: By names of your own. Whatever else is secret belongs here too, or it is shown.
    """

    _block_type_slug = "custom-webhook"

    name: str | None = None
    url: _WebhookUrl
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str] | None = None
    params: dict[str, str] | None = None
    json_data: JsonValue = None
    form_data: dict[str, str] | None = None
    secrets: dict[str, SecretStr] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.json_data is not None and self.form_data is not None:
            raise ValueError("json_data and form_data exclude each other")
        known = {"subject", "body", "name"}
        if taken := known & self.secrets.keys():
            raise ValueError(f"a secret cannot be called {min(taken)!r}: that stands for something")
        if unknown := self._request().names() - known - self.secrets.keys():
            raise ValueError(f"there is no secret called {min(unknown)!r}; give it in secrets")
        return self

    def _request(self) -> WebRequest:
        from prefectlite.webhooks import WebRequest

        return WebRequest(
            method=self.method,
            url=self.url.get_secret_value(),
            headers=self.headers or {},
            params=self.params or {},
            json_data=self.json_data,
            form_data=self.form_data,
        )

    def _place(self) -> str:
        return _host(self.url)

    def _send(self, body: str, subject: str) -> None:
        from prefectlite.webhooks import send_request

        secrets = {name: secret.get_secret_value() for name, secret in self.secrets.items()}
        values = {"subject": subject, "body": body, "name": self.name or "", **secrets}
        send_request(self._request().filled(values), timeout_seconds=self.timeout_seconds)


_Address = Annotated[str, Field(pattern=r"^[^\s@,;:<>]+@[^\s@,;:<>]+$")]


class EmailServer(NotificationBlock):
    """A mail server that takes mail for others; it needs no extra.

    Attributes:
        host: The server's name or address.
        port: None for the one of ``security``: 25, 587 or 465.
        username, password: None for a server that asks for none.
        sender: The address that the mail is from.
        recipients: Addresses. Where one of them is refused, the others have their mail.
        security: ``starttls`` turns to TLS before anything else is said, and fails where the server
            cannot; ``ssl`` speaks TLS from the start; ``none`` sends all in the clear.
        ca_file: A file of certificates in PEM, whose authorities are trusted in place of the
            system's.
    """

    _block_type_slug = "email-server"
    _trust: ClassVar[str] = "if its authority is your own, name that one's file in ca_file"

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    sender: _Address
    recipients: list[_Address] = Field(min_length=1)
    security: Literal["none", "starttls", "ssl"] = "starttls"
    ca_file: Path | None = None

    def _address(self) -> tuple[str, int]:
        return self.host, self.port or _SMTP_PORTS[self.security]

    def _place(self) -> str:
        return "{}:{}".format(*self._address())

    def _send(self, body: str, subject: str) -> None:
        from prefectlite.mails import MailServer, mail, send_mail

        password = "" if self.password is None else self.password.get_secret_value()
        server = MailServer(
            address=self._address(),
            security=self.security,
            login=None if self.username is None else (self.username, password),
            ca_file=self.ca_file,
            timeout_seconds=self.timeout_seconds,
        )
        send_mail(server, mail(self.sender, self.recipients, subject=subject, body=body))
