"""Which mailbox provider is behind an address: domains of one provider are one family, for it counts them together."""

from __future__ import annotations

from functools import lru_cache

_FAMILIES = {
    "gmail": "gmail.com googlemail.com",
    "outlook": "outlook.* hotmail.* live.* msn.com passport.com windowslive.com",
    "yahoo": "yahoo.* ymail.com rocketmail.com aol.* aim.com",
    "icloud": "icloud.com me.com mac.com",
    "naver": "naver.com",
    "daum": "daum.net hanmail.net kakao.com",
    "gmx": "gmx.* web.de mail.com",
    "mailru": "mail.ru inbox.ru list.ru bk.ru",
    "yandex": "yandex.* ya.ru",
    "qq": "qq.com foxmail.com",
    "netease": "163.com 126.com yeah.net",
}
_BY_DOMAIN = {domain: family for family, domains in _FAMILIES.items() for domain in domains.split()}


@lru_cache(maxsize=10_000)
def provider_of(domain: str) -> str:
    """`gmail` for googlemail.com, `outlook` for hotmail.co.uk; of any other domain the domain itself."""
    domain = domain.lower()
    return _BY_DOMAIN.get(domain) or _BY_DOMAIN.get(f"{domain.partition('.')[0]}.*") or domain
