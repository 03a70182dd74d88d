"""Planted secrets are seen nowhere of a delivery: words, frames, chains of errors, logs, output."""

import logging

import pytest
from pydantic import ValidationError

from prefectlite.blocks.notifications import (
    CustomWebhook,
    MattermostWebhook,
    TwilioSMS,
)
from prefectlite.errors import NotificationError
from prefectlite.message_delivery import fault

SECRETS = ["PLANTED1", "PLANTED2", "PLANTED3", "aPLANTEDa"]
SERVICES = ["slack", "teams", "pagerduty", "opsgenie", "twilio"]


REASONS = {
    "status": "HTTP status 400",
    "closed": "closed the connection",
    "slow": "did not answer in time",
    "untrusted": "certificate is not trusted",
    "no proxy": "the connection was refused",
    "unlike": "apprise does not take the fields",
}


def secrets_in(text):
    return [secret for secret in SECRETS if secret in text]


def break_it(what, service, monkeypatch):
    if what == "status":
        service.status, service.text = 400, " ".join(SECRETS).encode()
    elif what == "closed":
        service.behave = lambda handler: None
    elif what == "slow":
        service.behave = service.never_answer
    elif what == "untrusted":
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.delenv("SSL_CERT_FILE")
    elif what == "no proxy":
        monkeypatch.setenv("https_proxy", "http://PLANTED1:PLANTED2@127.0.0.1:1")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"json_data": {"a": ["{{tokn}}"]}}, "no secret called 'tokn'"),
        ({"url": "https://example.com/{{tokn}}"}, "no secret called 'tokn'"),
        ({"json_data": {}, "form_data": {}}, "exclude each other"),
        ({"secrets": {"body": "PLANTED1"}}, "cannot be called 'body'"),
        ({"url": "file:///etc/passwd"}, "begins with http:// or https://"),
        ({"url": "http://:80/PLANTED1"}, "begins with http:// or https://"),
        ({"url": "{{url}}"}, "begins with http:// or https://"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"timeout_seconds": float("nan")}, "less than or equal to 3600"),
        ({"timeout_seconds": float("inf")}, "less than or equal to 3600"),
    ],
)
def test_a_block_that_cannot_work_is_refused_without_showing_its_secrets(fields, told):
    with pytest.raises(ValidationError) as caught:
        CustomWebhook(**{"url": "https://example.com/PLANTED1", **fields})
    assert told in str(caught.value)
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("what", list(REASONS)[:5])
@pytest.mark.parametrize("name", [*SERVICES, "custom", "mattermost"])
def test_no_secret_is_seen_anywhere_of_a_delivery_that_fails(
    service_block, proxied, seen_of, monkeypatch, name, what
):
    break_it(what, proxied, monkeypatch)
    more = {"timeout_seconds": 0.25 if what == "slow" else 10}
    if name == "custom":
        block = CustomWebhook(
            url="https://user:PLANTED1@hooks.slack.com/{{a}}/PLANTED3?q=PLANTED3",
            headers={"X": "{{a}}"},
            secrets={"a": "PLANTED2"},
            **more,
        )
    elif name == "mattermost":
        block = MattermostWebhook(
            hostname="chat.slack.com", port=443, secure=True, token="PLANTED1", **more
        )
    else:
        block = service_block(name, **more)
    with pytest.raises(NotificationError, match=REASONS[what]) as caught:
        block.notify("hello", "subject")
    seen = seen_of(caught.value) + repr(block) + str(block)
    assert "hello" in seen  # the locals of the caller: the search sees what there is
    assert secrets_in(seen) == []
    assert caught.value.hint
    assert "{" not in caught.value.hint


def test_no_secret_is_logged_of_a_delivery_that_succeeds_and_all_else_is(
    service_block, proxied, logged
):
    service_block("slack").notify("hello")
    assert proxied.requests
    assert not [text for text in logged if "PLANTED" in text or "apprise" in text]
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).debug("of the program")
    assert [text.split(" {")[0] for text in logged if "of the program" in text] == [
        "apprise of the program",
        "urllib3.connectionpool of the program",
    ]


def test_what_apprise_does_not_take_is_told_without_showing_it(seen_of):
    block = TwilioSMS(
        account_sid="AC0123456789abcdef",
        auth_token="aPLANTEDa-",
        from_phone_number="18001234567",
        to_phone_numbers=["18004242424"],
    )
    with pytest.raises(NotificationError, match=REASONS["unlike"]) as caught:
        block.notify("hello")
    assert secrets_in(seen_of(caught.value)) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NameResolutionError(\"Failed to resolve 'x' ([Errno -2] ...)\")", "no such host"),
        ("<urlopen error [Errno -2] Name or service not known>", "no such host"),
        ("[Errno -3] Temporary failure in name resolution", "no such host"),
        ("[Errno 8] nodename nor servname provided, or not known", "no such host"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "speak TLS"),
        ("OSError('Tunnel connection failed: 403 Forbidden')", "the proxy refuses"),
        ("[Errno 104] Connection reset by peer", "closed"),
        ("PLANTED", "failed with KeyError"),
    ],
)
def test_what_libraries_say_of_a_failure_is_told_in_words_of_our_own(text, reason):
    told = fault(text, "KeyError")
    assert reason in told.reason
    assert "PLANTED" not in told.reason
