"""What notification blocks send over HTTP, and what they say of a failure."""

import asyncio
import base64
import json
import sys
from urllib.parse import parse_qs

import pytest

from prefectlite.blocks.notifications import (
    CustomWebhook,
    MattermostWebhook,
    MicrosoftTeamsWebhook,
    SlackWebhook,
)
from prefectlite.errors import NotificationError, UsageError

ADDRESSES = [
    ("slack", {}, "hooks.slack.com:443", "/services/TPLANTED1/BPLANTED2/PLANTED3"),
    ("teams", {}, "acme.logic.azure.com:443", "/workflows/PLANTED1/triggers/manual/paths/invoke?"),
    ("pagerduty", {}, "events.pagerduty.com:443", "/v2/enqueue"),
    ("pagerduty", {"region_name": "eu"}, "events.eu.pagerduty.com:443", "/v2/enqueue"),
    ("opsgenie", {}, "api.opsgenie.com:443", "/v2/alerts"),
    ("opsgenie", {"region_name": "eu"}, "api.eu.opsgenie.com:443", "/v2/alerts"),
    ("twilio", {}, "api.twilio.com:443", "/2010-04-01/Accounts/AC0123456789abcdef/Messages.json"),
]


LONGEST = {"pagerduty": 1024, "twilio": 1600, "teams": 1000}


@pytest.mark.parametrize(("name", "more", "host", "path"), ADDRESSES)
def test_each_service_is_told_at_its_own_address(service_block, proxied, name, more, host, path):
    if name == "opsgenie":
        proxied.text = b'{"requestId": "1"}'
    service_block(name, **more).notify("läuft\nnicht", "Der Lauf ✗")
    assert proxied.tunnels == [host]
    (request,) = proxied.requests
    assert (request.method, request.path[: len(path)]) == ("POST", path)
    form = parse_qs(request.body.decode())
    told = str(form["Body"] if name == "twilio" else json.loads(request.body))
    assert "läuft" in told
    assert "nicht" in told
    assert "Der Lauf ✗" in told


def test_the_credentials_and_fields_reach_the_service(service_block, proxied):
    service_block(
        "pagerduty",
        source="host",
        group="g",
        class_id="c",
        notify_type="failure",
        custom_details={"k": "v"},
    ).notify("down")
    assert proxied.requests[0].headers["Authorization"] == "Token token=PLANTED2"
    told = proxied.json()
    assert told["routing_key"] == "PLANTED1"
    wanted = {"source": "host", "group": "g", "class": "c", "severity": "critical"}
    assert wanted.items() <= told["payload"].items()
    assert told["payload"]["custom_details"] == {"k": "v"}
    service_block("twilio").notify("down")
    login = base64.b64encode(b"AC0123456789abcdef:aPLANTEDa").decode()
    assert proxied.requests[1].headers["Authorization"] == f"Basic {login}"


def test_an_opsgenie_notification_is_an_alert_of_its_own_for_whom_it_names(service_block, proxied):
    proxied.text = b'{"requestId": "1"}'
    service_block(
        "opsgenie", target_user=["ann"], target_team=["ops"], batch=True, tags=["a"], priority=1
    ).notify("down", "Down")
    told = proxied.json()
    assert {"message": "Down", "description": "down", "priority": "P1"}.items() <= told.items()
    assert sorted(told["responders"], key=str) == [
        {"type": "team", "name": "ops"},
        {"type": "user", "username": "ann"},
    ]


@pytest.mark.parametrize("kind", [SlackWebhook, MicrosoftTeamsWebhook])
def test_what_is_like_slack_gets_a_text_at_any_host(service, kind):
    kind(url=f"http://ann:p%40ss@127.0.0.1:{service.port}/hooks/x?a=1&a=2").notify(
        "body ✗", "Title"
    )
    (request,) = service.requests
    assert request.path == "/hooks/x?a=1&a=2"
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'ann:p@ss').decode()}"
    assert {key: value.split() for key, value in service.json().items()} == {
        "text": ["Title", "body", "✗"]
    }


def test_mattermost_is_told_in_each_channel(service):
    MattermostWebhook(
        hostname="127.0.0.1",
        port=service.port,
        token="PLANTED1",
        path="chat",
        botname="bot",
        channels=["#ops", "dev"],
    ).notify("down")
    assert {request.path for request in service.requests} == {"/chat/hooks/PLANTED1"}
    told = [json.loads(request.body) for request in service.requests]
    assert {(each["channel"], each["text"], each["username"]) for each in told} == {
        ("ops", "down", "bot"),
        ("dev", "down", "bot"),
    }


def test_what_a_custom_webhook_has_in_its_texts_is_filled_once(service):
    CustomWebhook(
        name="hook",
        url=f"http://u:p@127.0.0.1:{service.port}/{{{{ token }}}}/x?q={{{{subject}}}}",
        method="PUT",
        headers={"X-Title": "{{subject}}", "X-Body": "{{body}}"},
        params={"p": "{{name}} & co"},
        json_data={"text": ["{{body}}", {"n": 1, "by": "{{name}}"}], "none": None},
        secrets={"token": "a/b?c"},
    ).notify('"✗" {{token}}\nX-Evil: 1', "läuft nicht")
    (request,) = service.requests
    assert request.method == "PUT"
    assert request.path == "/a%2Fb%3Fc/x?q=l%C3%A4uft%20nicht&p=hook+%26+co"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'u:p').decode()}"
    sent = {name: value.encode("latin-1").decode() for name, value in request.headers.items()}
    assert sent["X-Title"] == "läuft nicht"
    assert sent["X-Body"] == '"✗" {{token}} X-Evil: 1'
    assert "X-Evil" not in sent
    assert service.json() == {
        "text": ['"✗" {{token}}\nX-Evil: 1', {"n": 1, "by": "hook"}],
        "none": None,
    }


def test_a_custom_webhook_sends_a_form(service):
    CustomWebhook(url=service.url, form_data={"m": "{{body}}"}).notify("a & b", None)
    assert parse_qs(service.requests[0].body.decode()) == {"m": ["a & b"]}


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({}, {"subject": "disk", "body": "full"}),
        ({"method": "PUT", "secrets": {"token": "t"}}, {"subject": "disk", "body": "full"}),
        ({"headers": {"X-Body": "{{ body }}"}}, None),
        ({"params": {"text": "{{subject}}"}}, None),
        ({"form_data": {}}, None),
        ({"method": "GET"}, None),
        ({"method": "DELETE"}, None),
        ({"json_data": {}}, {}),
    ],
    ids=str,
)
def test_a_custom_webhook_that_says_nothing_of_its_own_sends_the_message(service, fields, body):
    CustomWebhook(url=f"{service.url}/{{{{name}}}}", name="x", **fields).notify("full", "disk")
    (request,) = service.requests
    assert (json.loads(request.body) if request.body else None) == body


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (301, "new URL"),
        (400, "the fields of the block"),
        (401, "credentials"),
        (404, "may have been deleted"),
        (429, "try again later"),
        (500, "try again later"),
    ],
)
@pytest.mark.parametrize("kind", [SlackWebhook, CustomWebhook])
def test_a_status_of_failure_is_an_error_that_says_what_to_do(service, kind, status, hint):
    service.status, service.text = status, b"PLANTED1"
    service.headers = {"Location": f"{service.url}/elsewhere"}
    with pytest.raises(NotificationError, match=rf"HTTP status {status}$") as caught:
        kind(url=f"{service.url}/PLANTED1").notify("hello")
    assert hint in caught.value.hint
    assert caught.value.exit_code == 5
    assert len(service.requests) == 1  # a redirection would lose the text


def test_slack_has_not_taken_what_it_does_not_answer_with_ok(service_block, proxied):
    proxied.text = b"<html>"
    with pytest.raises(NotificationError, match=r"hooks\.slack\.com: it answered with HTTP"):
        service_block("slack").notify("hello")


def test_twilio_s_own_number_of_an_error_is_told(service_block, proxied):
    proxied.status, proxied.text = 400, b'{"code": 21211, "message": "error=404. PLANTED1"}'
    with pytest.raises(NotificationError, match=r"its error 21211$"):
        service_block("twilio").notify("hello error=404.")
    many = service_block("twilio").model_copy(update={"to_phone_numbers": ["1", "18004242424"]})
    with pytest.raises(NotificationError, match="no phone number"):
        many.notify("hello")
    assert len(proxied.requests) == 1


@pytest.mark.parametrize("behaviour", ["never_answer", "drip"])
@pytest.mark.parametrize("kind", [SlackWebhook, CustomWebhook])
def test_a_delivery_that_takes_too_long_fails(service, kind, behaviour):
    service.behave = getattr(service, behaviour)
    with pytest.raises(NotificationError, match="did not answer in time"):
        kind(url=service.url, timeout_seconds=0.3).notify("hello")


def test_a_port_where_nobody_listens_is_told(service):
    service.close()
    for kind in (SlackWebhook, CustomWebhook):
        with pytest.raises(NotificationError, match=rf"127.0.0.1:{service.port}: .* refused"):
            kind(url=service.url).notify("hello")


@pytest.mark.parametrize("name", LONGEST)
def test_a_text_that_is_too_long_is_one_message_without_its_end(service_block, proxied, name):
    service_block(name).notify("✗" * 40_000)
    (request,) = proxied.requests
    form = parse_qs(request.body.decode())
    text = (
        form["Body"][0]
        if name == "twilio"
        else json.dumps(json.loads(request.body), ensure_ascii=False)
    )
    assert LONGEST[name] - 2 <= text.count("✗") <= LONGEST[name]


def test_a_subject_is_one_line_and_stands_for_a_body_that_is_empty(service):
    block = CustomWebhook(url=service.url, json_data=["{{subject}}", "{{body}}"])
    block.notify("", "a\r\nX-Evil: 1\u2028\0")
    assert service.json() == ["a X-Evil: 1", "a X-Evil: 1"]
    for nothing in ("", " \n"):
        with pytest.raises(UsageError, match="nothing to notify"):
            block.notify(nothing)


def test_half_a_surrogate_pair_does_not_stop_a_notification(service):
    CustomWebhook(url=service.url, form_data={"m": "{{body}}"}).notify("file \udcff", "s \udcff")
    assert parse_qs(service.requests[0].body.decode()) == {"m": ["file ?"]}


def test_the_loop_goes_on_while_a_notification_is_sent(service):
    service.behave = service.never_answer
    block = SlackWebhook(url=service.url, timeout_seconds=30)

    async def main(send):
        service.released.clear()
        task = asyncio.create_task(send("hello"))
        while not service.requests:
            await asyncio.sleep(0.01)
        service.requests.clear()
        service.released.set()
        with pytest.raises(NotificationError, match="closed"):
            await task

    async def as_in_prefect(body):
        await block.notify(body)

    for send in (block.anotify, as_in_prefect):
        asyncio.run(main(send))


def test_without_apprise_it_says_what_to_install_and_custom_webhooks_go_on(service, monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(NotificationError, match="apprise is needed") as caught:
        SlackWebhook(url=service.url).notify("hello")
    assert caught.value.hint == "pip install 'prefectlite[notifications]'"
    CustomWebhook(url=service.url).notify("hello")
    assert len(service.requests) == 1


def test_nothing_is_imported_that_is_not_used(start_python):
    started = start_python(
        """
        import sys
        import prefectlite.flows, prefectlite.tasks, prefectlite.cli.flow_run
        ours = ("blocks", "blocks.notifications", "apprise_plugins", "mails", "webhooks")
        print([each for each in ours if f"prefectlite.{each}" in sys.modules])
        import prefectlite.blocks.notifications
        others = ("apprise", "requests", "smtplib", "urllib.request", "ssl", "asyncio")
        print([each for each in others if each in sys.modules])
        """
    )
    assert started.end().splitlines() == ["[]", "[]"]


def test_a_block_that_was_saved_notifies_and_is_named_in_errors(service, registry):
    CustomWebhook(
        url=f"{service.url}/{{{{token}}}}", secrets={"token": "PLANTED1"}, json_data=["{{body}}"]
    ).save("default")
    block = CustomWebhook.load("default")
    block.notify("hello")
    assert service.requests[0].path == "/PLANTED1"
    service.status = 500
    with pytest.raises(NotificationError, match="block custom-webhook/default did not notify"):
        block.notify("hello")
