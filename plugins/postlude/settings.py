"""Every setting in one place: `POSTLUDE_…` environment variables with defaults that suit a laptop."""

from __future__ import annotations

from datetime import time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Settings of one installation; `POSTLUDE_HOME=/var/lib/postlude` sets `home`, and so on."""

    model_config = SettingsConfigDict(env_prefix="POSTLUDE_", frozen=True, extra="ignore")

    home: Path = Field(
        PROJECT / ".postlude", description="state of a laptop installation: database, logs, mail, reports"
    )
    include: Path = Field(PROJECT / "include", description="campaigns, segments, sources, calendar, templates, SQL")
    db_url: str = Field("", description="PostgreSQL URL of an existing server; empty: the embedded server in `home`")
    test_db_url: str = Field("", description="server on which the tests may create databases; empty: embedded")

    # definitions (design, section 4)
    new_days: int = 30
    active_days: int = 90
    at_risk_days: int = 180
    loyalty_orders: int = Field(3, description="loyalty starts with this many counted orders ...")
    loyalty_spend: float = Field(300, description="... or with this much spent, in the shop's currency")

    # happenings (docs/happenings.md)
    waiters_per_piece: float = Field(3, gt=0, description="people told that a product is back, for each piece of it")
    price_drop_percent: float = Field(10, gt=0, lt=100, description="a price that fell by less is no news")
    refund_days: int = Field(10, ge=0, description="a refund is late so many days after the goods came back")
    cut_off: time = Field(time(15), description="paid later than this (the shop's clock): packed the next morning")
    high_value: float = Field(300, gt=0, description="a product of this price or more deserves a word from an expert")
    consumables: tuple[str, ...] = Field(("consumable",), description="categories of what is used up and bought again")
    pair_orders: int = Field(3, ge=2, description="two articles in fewer common orders say nothing about each other")

    max_feature_age: timedelta = Field(timedelta(hours=36), description="segments older than this start no campaign")
    holdout_salt: str = Field("postlude", description="draws control groups; people drawn already stay on their side")
    global_holdout: float = Field(
        0.0,
        ge=0,
        le=0.2,
        description="share of customers that no marketing campaign writes to, to measure all of them together",
    )
    global_holdout_salt: str = Field("postlude everywhere", description="its draw, independent of the campaigns' own")

    # sending
    sending: bool = Field(False, description="false: whatever the channel connection says, mail goes to the catcher")
    smtp_url: str = Field("", description="smtp://user:password@host:port of the real relay; used when `sending` is on")
    email_url: str = Field("", description="where mail leaves: smtp://, ses://, sendgrid://, ...; empty: `smtp_url`")
    sms_url: str = Field("", description="where text messages leave: sms://ACCOUNT:TOKEN@?from=..., or webhook://...")
    webhook_url: str = Field("", description="your own system for push and the like: webhook://:SECRET@host/path")
    report_lists: bool = Field(
        True, description="ask mailgun, postmark and sendgrid for what their web hooks may have missed"
    )
    banners: bool = Field(True, description="show banners on the shop's pages, when `sending` is on")
    sms_segments: int = Field(4, ge=1, le=10, description="a text that needs more messages than this is not sent")
    catcher_url: str = Field("", description="SMTP URL of another mail catcher; empty: the one on this machine")
    catcher_smtp_port: int = 18025
    catcher_http_port: int = 18026
    dkim_key: Path | None = Field(
        None, description="private key (PEM) that signs mails; none: the relay signs, or nobody"
    )
    dkim_selector: str = Field("postlude", pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
    bounce_domain: str = Field(
        "", description="domain whose mail lands in `mailbox`; set: every message has an own bounce address"
    )
    hook_ses: str = Field("", description="topics SES reports to, comma separated ARNs; empty: /hooks/ses is closed")
    hook_sendgrid: str = Field("", description="SendGrid's public key for signed events, base64")
    hook_mailgun: str = Field("", description="Mailgun's HTTP webhook signing key")
    hook_postmark: str = Field("", description="user:password that Postmark sends along")
    hook_sms: str = Field("", description="Twilio's auth token, which signs its requests")
    hook_webhook: str = Field("", description="secret with which your own system signs what it reports")
    mailbox: Path | None = Field(None, description="Maildir in which bounces, complaints and replies arrive")
    web_url: str = Field(
        "http://127.0.0.1:18027", description="where the public pages (unsubscribe, score) are reached"
    )
    web_port: int = 18027
    web_db_url: str = Field(
        "",
        description="PostgreSQL URL of the public pages, as the role postlude_web; empty: that role on the embedded server, "
        "with a server of yours `db_url` and all its rights",
    )
    reply_pause: timedelta = Field(
        timedelta(days=7), description="who answers a mail gets no marketing for so long; 0 switches it off"
    )
    airflow_port: int = 18080
    secret: str = Field("", description="key for links and coupon codes; empty: made once and kept in `home`/secret")
    batch: int = Field(500, ge=1, le=5000, description="messages claimed at a time")
    connections: int = Field(
        4, ge=1, le=200, description="connections to the relay that each deliver task keeps at once"
    )
    provider_connections: dict[str, int] = Field(
        {},
        description='connections of a deliver task that write to one mailbox provider at once, e.g. {"gmail": 2, "*": 4}',
    )
    provider_rates: dict[str, int] = Field(
        {},
        description='messages a minute to one mailbox provider, of all tasks together, e.g. {"naver": 60, "daum": 60}',
    )
    breaker_failures: int = Field(
        5, ge=1, description="failures of the relay in a row after which it is left alone ..."
    )
    breaker_wait: timedelta = Field(timedelta(minutes=1), description="... for so long, then one message tries")
    breaker_longest_wait: timedelta = Field(timedelta(minutes=30), description="the wait doubles up to this")
    lease: timedelta = Field(timedelta(minutes=15), description="how long a claim may stay unsettled before recovery")
    max_lag: timedelta = Field(timedelta(hours=6), description="a scheduled run older than this sends nothing")
    max_past: timedelta = Field(timedelta(hours=36), description="a run as of an earlier instant plans history only")
    old_secrets: str = Field("", description="former keys, comma separated: links made with them still work")
    marketing_cap: int = Field(3, description="marketing messages per customer in any `marketing_cap_days` days")
    marketing_cap_days: int = 7

    # gates
    quarantine_share: float = Field(0.02, description="share of refused rows above which a load stops")
    min_free_rows: int = Field(20, description="so many refused rows never stop a load by their share alone")
    feed_share: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="a whole day with less than this share of its weekday's usual rows makes a feed stale",
    )
    feed_least: int = Field(20, ge=1, description="... where at least so many are usual; fewer are chance")
    unknown_share: float = Field(
        0.005, description="share of rows with a word nobody knows (status, basis) above which a load stops"
    )
    min_free_unknown: int = Field(3, description="so many such rows never stop a load")
    volume_low: float = Field(0.3, ge=0, description="orders of a day, as a share of the weekday's median: less stops")
    volume_high: float = Field(3, description="... and more is told")
    volume_enough: int = Field(20, description="weekdays with a smaller median are not judged")
    volume_grace: timedelta = Field(timedelta(hours=2), description="a day is judged so long after its end")
    moved_share: float = Field(0.02, description="share of known orders whose time may differ in a delivery")
    changed_share: float = Field(0.2, description="share of known customers whose address may change in one delivery")
    unusable_share: float = Field(0.2, description="share of e-mail addresses that may be none")
    garbled_share: float = Field(0.02, description="share of people with unreadable letters above which a load stops")
    negative_share: float = Field(0.05, description="share of orders that may come to less than nothing")
    lineless_share: float = Field(0.5, description="share of new orders that may lack their lines when lines came")
    twice_share: float = Field(0.2, description="share of lines that may be in a file twice")
    price_factor: float = Field(
        3, gt=1, description="how far prices and pieces may move from those of the last 28 days"
    )
    clock_gain: float = Field(1, gt=0, description="how clearly a delivery's hours may fit a shifted clock better")
    approval: Literal["off", "band", "strict"] = Field(
        "band",
        description="band: unusual volumes wait for a named approval; strict: also every campaign's first run; off: never",
    )
    approval_factor: float = Field(3, ge=1, description="usual: up to so many times the weekday's median ...")
    approval_slack: int = Field(200, ge=0, description="... or so many messages more than it, whichever is more")
    approval_first_run: int = Field(5_000, description="a campaign's first run of more messages waits for an approval")
    approval_above: int = Field(
        50_000, description="a run of more messages always waits, unless its file says otherwise"
    )
    approval_share: float = Field(0.05, description="a win-back to a larger share of all customers waits")
    approval_wait: timedelta = Field(
        timedelta(hours=20),
        description="how long a run waits in Airflow for the answer; the messages wait until they expire",
    )
    approval_mail: str = Field("", description="who is told by mail when a plan waits for a yes, comma separated")
    approval_notifier: str = Field(
        "",
        description="... and an Airflow notifier beside it, e.g. airflow.providers.slack.notifications.slack.SlackNotifier",
    )
    approval_notifier_options: dict[str, str] = Field(
        {}, description='its arguments; {subject} and {url} are filled in, e.g. {"text": "{subject} {url}"}'
    )
    canary_above: int = Field(
        1_000, description="of a release of more messages within `canary_hold` a share goes first"
    )
    canary_share: float = Field(0.01, gt=0, le=1)
    canary_size: int = Field(50, ge=1, description="the share is never larger than this")
    canary_hold: timedelta = Field(
        timedelta(minutes=15), description="how long the share is watched; 0 switches canaries off"
    )
    canary_bounces: float = Field(0.05, description="share of bounces and refusals above which the rest is held")
    canary_complaints: float = Field(0.003, description="share of complaints above which the rest is held")
    bounce_limit: float = Field(
        0.05, gt=0, description="share of bounces and refusals above which a campaign stops itself"
    )
    complaint_limit: float = Field(0.003, gt=0, description="share of complaints above which a campaign stops itself")
    deliverability_window: timedelta = Field(timedelta(days=7), description="of what was handed over in this time")
    deliverability_enough: int = Field(200, ge=1, description="fewer messages than these are not judged")
    docs_days: int = Field(30, description="Data Docs and reports are kept so many days")
    banner_days: int = Field(7, ge=0, description="banners are kept so many days after they were shown last")
    inbox_days: int = Field(
        90, ge=14, description="reports of providers, and corrected rows of the quarantine, are kept so many days"
    )
    record_days: int = Field(400, ge=60, description="runs, verdicts of gates and used quotas are kept so many days")

    @property
    def sql(self) -> Path:
        return self.include / "sql"


@lru_cache
def settings() -> Settings:
    return Settings()  # type: ignore[call-arg]
