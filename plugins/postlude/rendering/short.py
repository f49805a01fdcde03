"""Short messages: the text of an SMS, a banner or a push, beside the mail's own files.

`win_back/miss_you` has them as include/templates/win_back/miss_you.sms.j2, .banner.j2, .webhook.j2 and, for a language of its
own, miss_you.ko.sms.j2. The variables are those of the mail. The first line of a banner or web hook is its title.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from postlude import rendering, texting, yamlfile
from postlude.errors import Fault, InputError
from postlude.rendering import words
from postlude.rendering.people import samples
from postlude.rendering.source import TemplateFault, assemble, flatten
from postlude.rendering.theme import Theme, load_theme
from postlude.rendering.variables import EMPTY, RenderError, first_name, plain, shop_of
from postlude.settings import settings

TITLED = ("banner", "webhook")
CHANNELS = ("sms", *TITLED)
# what a text must end with where nothing else says how to stop; the reply is understood in every language
STOP = {
    "en": "Reply STOP to opt out.",
    "de": "Abmelden: STOP antworten.",
    "fr": "STOP pour se désinscrire.",
    "es": "Responde STOP para no recibir más.",
    "pt": "Responda STOP para sair.",
    "ko": "수신거부: STOP 회신",
    "ja": "配信停止はSTOPと返信",
}
_STOP = re.compile(r"\bSTOP\b")


class Short(NamedTuple):
    """A finished short message; the title of an SMS is empty."""

    title: str
    text: str


def file_of(template: str, channel: str, locale: str = "", folder: Path | None = None) -> Path | None:
    """The file with the words for this channel: the locale's, its language's, else the default; None when there is none."""
    base = (folder or settings().include / "templates") / template
    for language in (*rendering._candidates(locale), ""):
        path = base.with_name(".".join(filter(None, (base.name, language, channel, "j2"))))
        if path.is_file():
            return path
    return None


def render(
    template: str,
    channel: str,
    context: Mapping[str, Any],
    locale: str = "en",
    theme: Theme | None = None,
    *,
    marketing: bool = True,
    folder: Path | None = None,
) -> Short:
    """The words for one person. Raises TemplateFault when nobody can get them, RenderError when this person cannot.

    A marketing SMS that does not tell how to stop gets a line that does. A banner sees nobody's name: a page may be cached.
    """
    theme = theme or load_theme()
    folder = folder or settings().include / "templates"
    path = file_of(template, channel, locale, folder)
    if path is None:
        raise TemplateFault(f'"{template}" has no words for {channel}; add include/templates/{template}.{channel}.j2')
    values = {**EMPTY, **plain(dict(context))}
    part, values["locale"] = _part(path, theme, folder, template, locale)
    values.setdefault("shop", shop_of(theme, values["locale"]))
    if isinstance(customer := values.get("customer"), dict):
        customer["first_name"] = "" if channel == "banner" else first_name(customer.get("first_name"))
    text = rendering._tidy(part.run(values)).strip()
    title = ""
    if channel in TITLED:
        title, _, text = text.partition("\n")
        title, text = title.strip(), text.strip()
    elif marketing and not _STOP.search(text):
        text += "\n" + STOP.get(locale[:2].lower(), STOP["en"])
    if not text or (channel in TITLED and not title):
        raise RenderError(f"the text is empty ({yamlfile.shown(path)})")
    if channel == "sms" and (needed := texting.segments(text).messages) > settings().sms_segments:
        raise RenderError(f"the text needs {needed} messages; at most {settings().sms_segments} are sent")
    return Short(title, text)


def check(template: str, channel: str, folder: Path | None = None) -> list[Fault]:
    """Everything that is wrong with the words for one channel, in all languages; tried on the invented people of `samples`."""
    folder = folder or settings().include / "templates"
    base = folder / template
    files = [base.with_name(f"{base.name}.{channel}.j2"), *sorted(base.parent.glob(f"{base.name}.*.{channel}.j2"))]
    found: list[Fault] = []
    for path in filter(Path.is_file, files):
        own = path.name.split(".")[1]
        languages = [own] if own != channel else sorted({words.DEFAULT_LANGUAGE, *words.languages(base)})
        for language in languages:
            found += _faults(template, channel, path, language, folder)
    return list(dict.fromkeys(found))


def _faults(template: str, channel: str, path: Path, language: str, folder: Path) -> list[Fault]:
    try:
        theme = load_theme()
        part, _ = _part(path, theme, folder, template, language)
    except InputError as error:
        return error.faults
    found = [*part.source.advice, *part.unknown]
    people = samples(template) if not part.unknown else {}
    for person, context in people.items():
        try:
            render(template, channel, context, language, theme, folder=folder)
        except RenderError as error:
            if person != "long":  # one whose name alone fills several messages is skipped, with the reason
                what = f"cannot be rendered for the sample person '{person}': {error.reason}"
                found.append(Fault(yamlfile.shown(path), 0, "", what))
    return found


_parts: dict[tuple[Path, str, int], tuple[rendering.Stamp, Theme, tuple[rendering.Part, str]]] = {}


def _part(path: Path, theme: Theme, folder: Path, template: str, locale: str) -> tuple[rendering.Part, str]:
    """The compiled file and its language, read again only when it or what it includes has changed."""
    known = _parts.get(key := (path, locale, id(theme)))
    if known and known[1] is theme and known[0] == rendering._stamp(name for name, _, _ in known[0]):
        return known[2]
    used = [str(path)]

    def read(file: Path) -> str:
        used.append(str(file))
        return yamlfile.read_text(file)

    said = words.load(folder, folder / template, rendering._candidates(locale), read, used)
    pieces = flatten(folder, path, theme, markup=False, read=read, words=said)
    part = rendering.Part(assemble(pieces), rendering._environment(False))
    own = len(path.name.split(".")) == 4  # the file itself is of a language
    spoken = locale if own or said.spoken_in(locale) else said.language
    if len(_parts) > 500:
        _parts.clear()
    _parts[key] = (rendering._stamp(dict.fromkeys(used)), theme, (part, spoken))
    return part, spoken
