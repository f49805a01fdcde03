"""Providers' HTTP APIs on 127.0.0.1, built from their public descriptions, with faults and an honest ledger of what they took.

A fault is one of FAULTS and is used for one request each; without faults the provider is well-behaved, and refuses what the
real one refuses: a wrong key, a missing field, an address that is none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from time import sleep
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "a-key-for-tests-only"
ACCOUNT = "AC" + "0" * 32
FAULTS = (
    "cut before", "cut in the body", "cut after", "reset after", "429", "429 date", "500", "502", "503", "504", "garbage body",
    "not http", "stall", "truncated", "drip", "huge", "early 401", "redirect",
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """One message a provider made its own."""

    key: str
    to: str
    text: str
    headers: dict[str, str]
    fields: dict[str, Any]


@dataclass
class Provider:
    """One provider; use as a context manager. `url` is what the channel is given."""

    name: str
    faults: list[str] = field(default_factory=list)
    ledger: list[Taken] = field(default_factory=list)
    same_id: bool = False
    errors: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    connections: int = 0
    requests: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)  # of its lists
    next_at: str = ""  # where it says that the next page is
    early_bytes: int = 0
    tls: ssl.SSLContext | None = None
    keep_alive: bool = True
    hang_up_after_answer: bool = False
    hung_up: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(0)
    )  # one for each connection closed

    def __enter__(self) -> Provider:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.waiting = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.waiting.set()
        self.listener.close()

    @property
    def api(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def url_of(self, options: str = "") -> str:
        given = {
            "ses": f"ses://AKID:{SECRET}@eu-west-1?",
            "sendgrid": f"sendgrid://:{SECRET}@?",
            "mailgun": f"mailgun://:{SECRET}@/mail.shop.example?",
            "postmark": f"postmark://:{SECRET}@?",
            "sms": f"sms://{ACCOUNT}:{SECRET}@?from=%2B4930123456&callback=https://mail.shop.example/hooks/sms&",
            "webhook": f"webhook://:{SECRET}@push.shop.example/in?",
        }[self.name]
        return f"{given}api={self.api}&timeout=1{options}"

    @property
    def url(self) -> str:
        return self.url_of()

    # ------------------------------------------------------------ the wire

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                while self._one(connection):
                    pass
        except OSError:
            pass
        finally:
            self.hung_up.release()

    def _one(self, connection: socket.socket) -> bool:
        """One request and its answer; False when the connection is over."""
        fault = ""
        with self.lock:
            if self.faults:
                fault = self.faults.pop(0)
        if fault == "cut before":
            connection.recv(1)
            return False
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return False
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        self.requests += 1
        if fault == "early 401":
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            sleep(0.2)  # long enough that the client can see it before its last byte
            return False
        wanted = int(headers.get("content-length", 0))
        if fault == "cut in the body":
            return False
        while len(body) < wanted:
            part = connection.recv(65536)
            if not part:
                return False
            body += part
        status, answered, more = self._answer(method, target, headers, body, fault)
        raw = json.dumps(answered).encode() if answered is not None else b""
        if fault == "cut after":
            return False
        if fault == "reset after":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            return False
        if fault == "stall":
            self.waiting.wait(10)
            return False
        if fault == "not http":
            connection.sendall(b"\x00\xffhello\r\n\r\n")
            return False
        if fault == "garbage body":
            raw, more = b"<html>\xff maintenance", {}
        if fault == "huge":
            raw = b'{"x": "' + b"x" * 200_000
        length = len(raw) + (50 if fault == "truncated" else 0)
        keep = "keep-alive" if self.keep_alive else "close"
        told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        answer = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: {keep}\r\n{told}\r\n"
        if fault == "drip":
            for byte in (answer.encode() + raw)[:60]:
                connection.sendall(bytes([byte]))
                sleep(0.1)
            return False
        connection.sendall(answer.encode() + raw)
        return fault != "truncated" and self.keep_alive and not self.hang_up_after_answer

    def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, fault: str
    ) -> tuple[int, dict[str, Any] | None, dict[str, str]]:
        """Status, JSON and headers; takes the message when all is well."""
        if fault in ("429", "429 date"):
            later = "7" if fault == "429" else "Wed, 01 Jan 2100 00:00:00 GMT"
            return 429, {"message": "slow down", "code": 20429, "ErrorCode": 429}, {"retry-after": later}
        if fault in ("500", "502", "503", "504"):
            return int(fault), {"message": "oh no"}, {}
        if fault == "redirect":
            return 302, {}, {"location": "https://elsewhere.example/"}
        if self.errors:
            status, told = self.errors.pop(0)
            return status, told, {}
        if method == "GET":
            return 200, getattr(self, f"_list_{self.name}")(target, headers), {}
        assert method == "POST"
        taken, refused = getattr(self, f"_{self.name}")(target, headers, body)
        if taken is None:
            return *refused, {}
        with self.lock:
            self.ledger.append(taken)
            number = 1 if self.same_id else len(self.ledger)
        found = f"{self.name}-{number}"
        match self.name:
            case "ses":
                return 200, {"MessageId": found}, {}
            case "sendgrid":
                return 202, None, {"x-message-id": found}
            case "mailgun":
                return 200, {"id": f"<{found}@mail.shop.example>", "message": "Queued. Thank you."}, {}
            case "postmark":
                return 200, {"ErrorCode": 0, "Message": "OK", "MessageID": found, "To": taken.to}, {}
            case "sms":
                return 201, {"sid": found, "status": "queued", "to": taken.to}, {}
            case _:
                return 200, {"id": found}, {}

    # ------------------------------------------------------------ what each one tells when it is asked

    def _list_mailgun(self, target: str, headers: dict[str, str]) -> Any:
        """Its `entries` oldest first, two a page, whatever limit is asked for; the next page is an address of its own."""
        assert headers["authorization"] == "Basic " + base64.b64encode(f"api:{SECRET}".encode()).decode()
        path, asked = urlsplit(target).path, {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        assert path.startswith("/v3/mail.shop.example/events")
        begin, place = (
            (float(asked["begin"]), 0) if "begin" in asked else map(float, path.rpartition("/")[2].split("-"))
        )
        assert "begin" not in asked or (asked["ascending"] == "yes" and "delivered OR failed" in asked["event"])
        wanted = sorted((e for e in self.entries if e["timestamp"] >= begin), key=lambda e: float(e["timestamp"]))
        items = wanted[int(place) : int(place) + 2]
        following = f"{self.next_at or self.api}/v3/mail.shop.example/events/{begin}-{place + len(items)}"
        return {"items": items, "paging": {"next": following}}

    def _list_postmark(self, target: str, headers: dict[str, str]) -> Any:
        """Newest first; dates are New York's and without a zone; 10,000 entries of a question can be seen."""
        assert headers["x-postmark-server-token"] == SECRET and urlsplit(target).path == "/bounces"
        asked = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        count, offset = int(asked["count"]), int(asked["offset"])
        assert count <= 500 and count + offset <= 10_000
        wanted = [e for e in self.entries if asked["fromdate"] <= e["BouncedAt"][:19] <= asked.get("todate", "9")]
        wanted.sort(key=lambda e: e["BouncedAt"], reverse=True)
        return {"TotalCount": len(wanted), "Bounces": wanted[offset : offset + count]}

    def _list_sendgrid(self, target: str, headers: dict[str, str]) -> Any:
        assert headers["authorization"] == f"Bearer {SECRET}"
        asked = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        name, offset = urlsplit(target).path.removeprefix("/v3/suppression/"), int(asked["offset"])
        wanted = [e for e in self.entries if e["list"] == name and e["created"] >= int(asked["start_time"])]
        kept = [{key: value for key, value in entry.items() if key != "list"} for entry in wanted]
        return kept[offset : offset + int(asked["limit"])]

    # ------------------------------------------------------------ what each one checks

    def _ses(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        if target != "/v2/email/outbound-emails":
            return None, (404, {"message": "no such operation"})
        if not _signed_v4(target, headers, body):
            return None, (403, {"__type": "SignatureDoesNotMatch", "message": "signature"})
        asked = json.loads(body)
        mail = message_from_bytes(base64.b64decode(asked["Content"]["Raw"]["Data"]), policy=policy.default)
        to = asked["Destination"]["ToAddresses"]
        if len(to) != 1 or not _is_mail(to[0]):
            return None, (400, {"__type": "BadRequestException", "message": "Invalid address"})
        tags = {tag["Name"]: tag["Value"] for tag in asked["EmailTags"]}
        return Taken(tags["msg_key"], to[0], _plain(mail), dict(mail.items()), asked), None

    def _sendgrid(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        if headers.get("authorization") != f"Bearer {SECRET}":
            return None, (401, {"errors": [{"message": "The provided authorization grant is invalid"}]})
        asked = json.loads(body)
        assert target == "/v3/mail/send" and {"from", "subject", "content", "personalizations"} <= asked.keys()
        to = asked["personalizations"][0]["to"][0]["email"]
        if not _is_mail(to):
            told = {"field": "personalizations.0.to.0.email", "message": "Does not contain a valid address."}
            return None, (400, {"errors": [told]})
        reserved = {"to", "from", "subject", "reply-to", "content-type", "content-transfer-encoding", "received"}
        assert not reserved & {name.lower() for name in asked["headers"]}
        assert [part["type"] for part in asked["content"]] in (["text/plain"], ["text/plain", "text/html"])
        return Taken(asked["custom_args"]["msg_key"], to, asked["content"][0]["value"], asked["headers"], asked), None

    def _mailgun(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        if headers.get("authorization") != "Basic " + base64.b64encode(f"api:{SECRET}".encode()).decode():
            return None, (401, {"message": "Forbidden"})
        if target != "/v3/mail.shop.example/messages.mime":
            return None, (404, {"message": "Domain not found"})
        whole = b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body
        form = {}
        for part in message_from_bytes(whole, policy=policy.default).iter_parts():
            name = part.get_param("name", header="content-disposition")
            inner = part.get_payload()
            form[name] = inner[0].as_bytes() if part.get_content_type() == "message/rfc822" else str(inner).strip()
        if not _is_mail(str(form["to"])):
            return None, (400, {"message": "'to' parameter is not a valid address. please check documentation"})
        mail = message_from_bytes(form["message"], policy=policy.default)
        return Taken(form["v:msg_key"], form["to"], _plain(mail), dict(mail.items()), form), None

    def _postmark(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        if headers.get("x-postmark-server-token") != SECRET:
            return None, (401, {"ErrorCode": 10, "Message": "Bad or missing API token"})
        asked = json.loads(body)
        to = asked["To"].rpartition("<")[2].rstrip(">")
        assert target == "/email"
        if not _is_mail(to):
            return None, (422, {"ErrorCode": 300, "Message": "Error parsing 'To': Illegal email address"})
        named = {item["Name"]: item["Value"] for item in asked["Headers"]}
        return Taken(asked["Metadata"]["msg_key"], to, asked["TextBody"], named, asked), None

    def _sms(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        if headers.get("authorization") != "Basic " + base64.b64encode(f"{ACCOUNT}:{SECRET}".encode()).decode():
            return None, (401, {"code": 20003, "message": "Authenticate"})
        assert target == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if not re.fullmatch(r"\+[1-9]\d{6,14}", form["To"]):
            return None, (400, {"code": 21211, "message": f"The 'To' number {form['To']} is not valid."})
        if len(form["Body"]) > 1600:
            return None, (400, {"code": 21617, "message": "The concatenated message body exceeds 1600 characters"})
        key = parse_qs(urlsplit(form["StatusCallback"]).query)["m"][0]
        return Taken(key, form["To"], form["Body"], headers, form), None

    def _webhook(self, target: str, headers: dict[str, str], body: bytes) -> Any:
        stamp, _, digest = headers["postlude-signature"].removeprefix("t=").partition(",v1=")
        expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        if digest != expected or abs(datetime.now(UTC).timestamp() - int(stamp)) > 300:
            return None, (401, {"error": "signature"})
        asked = json.loads(body)
        key = headers["idempotency-key"]
        # the contract: one copy per key; asked again it says yes again
        for taken in self.ledger:
            if taken.key == key:
                with self.lock:
                    self.ledger.remove(taken)
                return taken, None
        return Taken(key, asked["phone"] or asked["email"] or asked["person"], asked["text"], headers, asked), None


def _is_mail(address: str) -> bool:
    return bool(re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+\.[a-z0-9-]+", address))


def _plain(mail: Any) -> str:
    return str(mail.get_body(("plain",)).get_content()).strip()


def _signed_v4(target: str, headers: dict[str, str], body: bytes) -> bool:
    """AWS Signature Version 4 of a POST, computed anew from its description."""
    told = dict(part.split("=", 1) for part in headers["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", "))
    key, day, region, service, last = told["Credential"].split("/")
    names = told["SignedHeaders"].split(";")
    if key != "AKID" or service != "ses" or last != "aws4_request" or not {"host", "x-amz-date"} <= set(names):
        return False
    canonical = ["POST", target, "", *(f"{n}:{headers[n]}" for n in names), "", ";".join(names), _hex(body)]
    scope = f"{day}/{region}/{service}/{last}"
    string = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, _hex("\n".join(canonical).encode())])
    secret = ("AWS4" + SECRET).encode()
    for part in (day, region, service, last, string):
        signature = hmac.new(secret, part.encode(), hashlib.sha256)
        secret = signature.digest()
    return signature.hexdigest() == told["Signature"] and headers["x-amz-date"][:8] == day


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
