"""Mails to look at before anybody gets them: the sample people, every block by itself, and a page to see one mail on."""

from __future__ import annotations

import html
import re
import shutil
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from postlude import rendering
from postlude.campaign import Campaign, Step, load_campaign
from postlude.rendering import people
from postlude.settings import settings

# every block with what its include hands over; docs/blocks.md tells the rest
BLOCKS: Mapping[str, str] = {
    "hello": "",
    "title": "text=t.title",
    "heading": "text=t.heading",
    "text": "text=t.text",
    "soft": "text=t.soft",
    "button": "text=t.button, href=links.shop",
    "link": "text=t.link, href=links.shop",
    "picture": "src=item.image_url, alt=item.name",
    "notice": "title=t.heading, text=t.text",
    "divider": "",
    "items": "",
    "totals": "",
    "order_state": "",
    "tracking": "",
    "parcels": "",
    "address": "",
    "refund": "",
    "bill": "",
    "recommendations": "",
    "product": "",
    "coupon": "",
    "points": "",
    "perks": "",
    "free_shipping": "",
    "referral": "",
    "stars": "",
    "nps": "",
    "choices": "options=event.options, href=event.url",
    "faq": "",
    "support": "",
    "care": "title=t.heading, one=t.text, two=t.soft",
    "news": "",
}
_WORDS = {
    "en": {
        "title": "A heading that says it all",
        "heading": "A heading inside",
        "text": "A paragraph of plain words, as friendly as a letter.",
        "soft": "A small remark.",
        "button": "The one thing to do",
        "link": "A lesser thing to do",
    },
    "ko": {
        "title": "한눈에 보이는 제목",
        "heading": "안에 들어가는 제목",
        "text": "편지처럼 다정한 말로 쓴 문단이에요.",
        "soft": "작은 설명이에요.",
        "button": "할 일 하나",
        "link": "덜 중요한 일",
    },
    "ja": {
        "title": "ひと目でわかる見出し",
        "heading": "途中の見出し",
        "text": "手紙のようにやさしい言葉の段落です。",
        "soft": "小さな補足です。",
        "button": "してほしいことひとつ",
        "link": "そのほかのこと",
    },
}


# where the order of the sample customer is when a mail of this family goes out; else delivered
_STATES = {"order_confirmation": "paid", "packed_today": "packed", "order_shipped": "shipped", "delivery_delayed": "shipped",
           "return_progress": "returned", "refund_late": "returned", "payment_failed": "paid", "blocks": "shipped"}  # fmt: skip
_RETURNS = ("requested", "received", "refunded", "exchanged")


def person(template: str, language: str, who: str = "ana") -> dict[str, Any]:
    """The variables of a sample person when this mail goes out, with pictures and names in this language for the usual one."""
    found = dict(rendering.samples(template)[who])
    if who == "ana":
        family, _, name = template.partition("/")
        state = _STATES.get(family, "delivered")
        found["order"] = found["order"] | {"state": state}
        if state not in ("delivered", "returned"):
            found["order"]["delivered_on"] = None
        if family == "return_progress" and name in _RETURNS:
            found["refund"] = found["refund"] | {"state": name}
        found = people.in_words(people.with_pictures(found), language)
    return found | _of_campaign(template, found)


def _of_campaign(template: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the campaign file says: why the mail comes, and how much its coupon gives."""
    for campaign, step in _steps():
        if template in step.templates:
            coupon = found["coupon"] | ({"percent": step.coupon.percent} if step.coupon else {})
            return {"coupon": coupon, **campaign.variables(step)}
    return {}


@lru_cache(maxsize=1)
def _steps() -> tuple[tuple[Campaign, Step], ...]:
    files = sorted((settings().include / "campaigns").glob("[!.]*.yml"))
    return tuple((campaign, step) for campaign in map(load_campaign, files) for step in campaign.steps)


def block_shelf(folder: Path, languages: tuple[str, ...] = ("en", "ko", "ja")) -> Path:
    """A folder of templates with the shipped blocks, `blocks/NAME` for each of them, and `blocks/sheet_1` ... `sheet_3` with all."""
    shutil.copytree(settings().include / "templates" / "_base", folder / "_base")
    (folder / "blocks").mkdir()
    sheets = {f"sheet_{n + 1}": dict(list(BLOCKS.items())[n * 11 : (n + 1) * 11]) for n in range(3)}
    for name, chosen in {**{name: {name: given} for name, given in BLOCKS.items()}, **sheets}.items():
        for kind in ("mjml", "txt"):
            rows = "\n".join(
                f'{{% include "_base/{block}.{kind}.j2"{" with " + given if given else ""} %}}'
                for block, given in chosen.items()
            )
            whole = (
                '{% extends "_base/mail.mjml.j2" %}\n{% block card %}\n' + rows + "\n{% endblock %}\n"
                if kind == "mjml"
                else rows + '\n{% include "_base/footer.txt.j2" %}\n'
            )
            (folder / "blocks" / f"{name}.{kind}.j2").write_text(whole, encoding="utf-8")
        for language in languages:
            said = _WORDS[language] | {"subject": name, "preheader": name}
            text = "".join(f"{key}: {word}\n" for key, word in said.items())
            (folder / "blocks" / f"{name}.{language}.yml").write_text(text, encoding="utf-8")
    return folder


def picture(name: str) -> str:
    """A drawing (SVG) that stands for the picture of a product; the same name gives the same one."""
    seed = sum(ord(char) * number for number, char in enumerate(name, 1))
    hue, kind = seed * 47 % 360, seed % 3
    shapes = (
        '<rect x="26" y="44" width="68" height="50" rx="8"/><path d="M44 44v-8a16 16 0 0 1 32 0v8" fill="none"/>',
        '<path d="M34 40h44l-4 54H38z"/><path d="M78 50h8a10 10 0 0 1 0 26h-10" fill="none"/>',
        '<rect x="30" y="34" width="60" height="56" rx="28"/><path d="M30 62h60" fill="none"/>',
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 120" width="480" height="480">'
        f'<rect width="120" height="120" fill="hsl({hue} 30% 88%)"/>'
        f'<g fill="hsl({hue} 32% 62%)" stroke="hsl({hue} 34% 34%)" stroke-width="3">{shapes[kind]}</g></svg>'
    )


def _drawn(mail: str) -> str:
    """The mail with the pictures of sample products drawn into it: their addresses are nobody's."""

    def draw(match: re.Match[str]) -> str:
        return "data:image/svg+xml;base64," + b64encode(picture(match[1]).encode()).decode()

    return re.sub(r"https://shop\.example/i/([\w.-]+)", draw, mail)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 15px/22px system-ui, sans-serif; margin: 0; background: #ddd8cd; color: #222; }}
header {{ padding: 14px 20px; background: #fff; border-bottom: 1px solid #ccc; }} h1 {{ font-size: 17px; margin: 0 0 4px; }}
dl {{ margin: 0; display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; }} dt {{ color: #666; }} dd {{ margin: 0; }}
main {{ display: flex; flex-wrap: wrap; gap: 24px; padding: 20px; align-items: flex-start; }}
figure {{ margin: 0; }} figcaption {{ padding: 0 0 6px; color: #444; }}
iframe {{ border: 1px solid #999; border-radius: 10px; background: #fff; height: 78vh; max-width: 94vw; }}
pre {{ width: 600px; max-width: 88vw; max-height: 78vh; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere;
background: #fff; border: 1px solid #999; border-radius: 10px; padding: 14px; margin: 0; box-sizing: border-box; }}
nav a {{ margin-right: 14px; }} a {{ color: #1f6b4a; }}
</style><header><h1>{title}</h1><nav>{others}</nav><dl><dt>From</dt><dd>{sender}</dd><dt>Subject</dt><dd>{subject}</dd>
<dt>Preview</dt><dd>{preheader}</dd><dt>Size</dt><dd>{size}</dd></dl></header><main>
<figure><figcaption>Phone, 360 px</figcaption><iframe title="Phone" sandbox="" width="360" srcdoc="{mail}"></iframe></figure>
<figure><figcaption>Desktop, 640 px</figcaption><iframe title="Desktop" sandbox="" width="640" srcdoc="{mail}"></iframe></figure>
<figure><figcaption>Text part</figcaption><pre>{text}</pre></figure></main></html>
"""


def page(title: str, content: rendering.Content, sender: str, others: Mapping[str, str] | None = None) -> str:
    """One mail on a page of HTML: subject, preview line, as on a phone and a desktop, and its text. Scripts are off inside.

    others: name -> address of neighbouring pages.
    """
    links = "".join(f'<a href="{html.escape(at)}">{html.escape(name)}</a>' for name, at in (others or {}).items())
    return _PAGE.format(
        title=html.escape(title), others=links, sender=html.escape(sender), subject=html.escape(content.subject),
        preheader=html.escape(content.preheader), mail=html.escape(_drawn(content.html)), text=html.escape(content.text),
        size=f"{len(content.html.encode()) / 1024:.0f} KB of at most {rendering.MAX_HTML // 1024}",
    )  # fmt: skip
