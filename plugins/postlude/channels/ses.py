"""Amazon SES, API version 2 (SendEmail with the raw message), signed with Signature Version 4.

URL: ses://ACCESS_KEY:SECRET@eu-west-1?configuration_set=NAME   (the host is the region; `token=` for temporary credentials)

SES has no idempotency key. Our message id goes along as the tag `msg_key`, which its events bring back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_code, said, sending
from postlude.errors import InputError
from postlude.message import Message, Outcome, envelope

idempotent = False

_PATH = "/v2/email/outbound-emails"
_CODES = {
    **dict.fromkeys(
        (
            "TooManyRequestsException", "ThrottlingException", "Throttling", "RequestThrottled", "LimitExceededException",
        ),
        "busy",
    ),
    **dict.fromkeys(
        (
            "AccountSuspendedException", "SendingPausedException", "MailFromDomainNotVerifiedException", "NotFoundException",
            "AccessDeniedException", "SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException",
            "ExpiredTokenException", "MissingAuthenticationTokenException", "InvalidClientTokenId",
            "MessageRejected",  # the sender is not verified; what else it says is looked at before
        ),
        "ours",
    ),
}  # fmt: skip


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint = Endpoint.parse(url, "ses", "", ("configuration_set", "token"), needs="secret")
    region = endpoint.host
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region) or not endpoint.user:
        raise InputError("the ses URL must look like ses://ACCESS_KEY:SECRET@eu-west-1")
    base = endpoint.base
    if base == f"https://{region}":
        base = f"https://email.{region}.amazonaws.com"

    def build(message: Message, raw: bytes) -> Request:
        asked: dict[str, Any] = {
            "Destination": {"ToAddresses": [envelope(message.recipient.address)]},
            "Content": {"Raw": {"Data": base64.b64encode(raw).decode()}},
            "EmailTags": [{"Name": "msg_key", "Value": str(message.message_id)}],
        }
        if name := endpoint.options.get("configuration_set"):
            asked["ConfigurationSetName"] = name
        body = json.dumps(asked).encode()
        headers = {"host": urlsplit(base).netloc, "content-type": "application/json"}
        if token := endpoint.options.get("token"):
            headers["x-amz-security-token"] = token
        signed = sign(endpoint.user, endpoint.password, region, _PATH, headers, body, datetime.now(UTC))
        return Request("POST", base + _PATH, signed, body)

    with sending(endpoint, build, _judge) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Its events come through the landing of web hooks."""
    return iter(())


def sign(
    key: str, secret: str, region: str, path: str, headers: dict[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers with those of Signature Version 4 for a POST without query."""
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    digest = hashlib.sha256(body).hexdigest()
    headers = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    asked = "\n".join(("POST", path, "", lines, names, digest))
    scope = f"{day}/{region}/ses/aws4_request"
    told = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(asked.encode()).hexdigest()))
    derived = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(derived, told.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _judge(answer: Answer, fit: Fit) -> Outcome:
    data = answer.data
    if answer.status == 200:
        if found := data.get("MessageId"):
            return Outcome("accepted", reply="200", provider_id=str(found))
        return Outcome("ambiguous", reply="200 without a message id")
    # "Type:http://..." or "prefix#Type"
    kind = str(answer.headers.get("x-amzn-errortype") or data.get("__type") or data.get("code") or "")
    kind = kind.split(":", maxsplit=1)[0].rpartition("#")[2]
    told = str(data.get("message") or data.get("Message") or "")
    text = fit(said(answer, kind, told))
    if kind == "MessageRejected" and "not verified" not in told:
        return Outcome("refused", "policy", text)
    return by_code(_CODES, kind, answer, text)
