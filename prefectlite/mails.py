"""Send a mail through a server, by the standard library.

The block of mail servers calls it, in a delivery. No text of a server leaves this module, since it may
quote what it was sent; its codes do.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path

from prefectlite.clock import now
from prefectlite.message_delivery import UndeliveredError, one_line

_HINTS = {
    421: "try again later",
    530: "it wants a username and a password, or TLS",
    534: "it wants another way to log in, such as a password for this program alone",
    535: "check the username and the password",
    552: "the text is too long for it",
}
_SUBJECT_CHARACTERS = 78  # of a line of mail, RFC 5322


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in.

    Attributes:
        security: ``none``, ``starttls`` or ``ssl``.
        login: A username and a password; None to not log in.
        ca_file: Whose authorities are trusted in place of the system's.
    """

    address: tuple[str, int]
    security: str
    login: tuple[str, str] | None
    ca_file: Path | None
    timeout_seconds: float

    def connect(self) -> smtplib.SMTP:
        """Connect, as far as nothing is secret.

        Raises:
            UndeliveredError: The certificates to trust cannot be read.
            OSError: The server cannot be reached, or is not trusted.
            smtplib.SMTPException: It does not speak TLS.
        """
        if self.security == "none":
            return smtplib.SMTP(*self.address, timeout=self.timeout_seconds)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError:
            reason = f"the ca_file {str(self.ca_file)!r} cannot be read as certificates"
            raise UndeliveredError(reason, "name a file of certificates in PEM") from None
        if self.security == "ssl":
            return smtplib.SMTP_SSL(*self.address, timeout=self.timeout_seconds, context=context)
        server = smtplib.SMTP(*self.address, timeout=self.timeout_seconds)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server


def mail(sender: str, recipients: Sequence[str], *, subject: str, body: str) -> EmailMessage:
    """Return a mail; one without a subject, which looks like spam, gets the beginning of its text."""
    message = EmailMessage()
    message["Subject"] = subject or one_line(body)[:_SUBJECT_CHARACTERS]
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = format_datetime(now())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(body)
    return message


def send_mail(server: MailServer, message: EmailMessage) -> None:
    """Hand a mail in, and wait until the server has taken it.

    Raises:
        UndeliveredError: It was refused, by all recipients or by some.
        OSError: The server cannot be reached, or is not trusted.
        smtplib.SMTPException: It has gone in the middle.
    """
    refused: Mapping[str, tuple[int, bytes]]
    try:
        with closing(server.connect()) as connection:
            if server.login is not None:
                connection.login(*server.login)
            refused = connection.send_message(message)
            # It has the mail: how it takes the goodbye does not matter.
            with suppress(smtplib.SMTPException, OSError):
                connection.quit()
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    except smtplib.SMTPNotSupportedError as error:
        known = ("STARTTLS", "AUTH", "SMTPUTF8")
        what = next((each for each in known if each in str(error)), "what is needed")
        raise UndeliveredError(f"it does not offer {what}", "check port and security") from None
    except smtplib.SMTPResponseException as error:
        raise _refusal(error) from None
    if refused:
        codes = ", ".join(f"{recipient} ({code})" for recipient, (code, _) in refused.items())
        rest = "; the others have it" if len(refused) < len(message["To"].addresses) else ""
        raise UndeliveredError(f"it refused {codes}{rest}", "check the recipients")


def _refusal(error: smtplib.SMTPResponseException) -> UndeliveredError:
    code = error.smtp_code
    if isinstance(error, smtplib.SMTPSenderRefused):
        return UndeliveredError(f"it refused the sender ({code})", "check sender and username")
    return UndeliveredError(
        f"it refused with code {code}", _HINTS.get(code, "see the server's log")
    )
