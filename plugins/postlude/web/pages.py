"""The public pages: one small HTML frame, its style, its words in English, Korean and Japanese. No script at all."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache

from jinja2 import DictLoader, Environment, StrictUndefined

from postlude.rendering import Theme
from postlude.rendering.theme import Colours

_FRAME = """<!doctype html>
<html lang="{{ language }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{{ words.title }} · {{ shop.name }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
<p class="shop">{{ shop.name }}</p>
<h1>{{ words.title }}</h1>
{% for paragraph in words.text %}<p>{{ paragraph.format(score=score, most=scores[-1] if scores else "", shop=shop.name) }}</p>
{% endfor %}
{% if name == "preferences" %}
{% if done %}<p class="done" role="status">{{ words.done[done] }}</p>{% endif %}
{% if old %}<p>{{ words.old }}</p>{% endif %}
{% if suppressed and suppressed != "unsubscribed" %}<p>{{ words.suppressed }}</p>{% endif %}
{% if masked %}<p>{{ words.whose }} <strong>{{ masked }}</strong></p>{% endif %}
{% if topics %}
<form method="post" accept-charset="utf-8">
<fieldset>
<legend>{{ words.legend }}</legend>
{% for id, topic in topics %}
<label class="topic"><input type="checkbox" name="topic_{{ id }}" value="yes"{{ " checked" if id in agreed }}>
<span><b>{{ topic.name }}</b>{% if topic.about %}<br>{{ topic.about }}{% endif %}</span></label>
{% endfor %}
</fieldset>
<button name="do" value="save">{{ words.save }}</button>
</form>
<h2>{{ words.pause }}</h2>
<form method="post">
{% if paused %}
<p>{{ words.paused.format(day=paused) }}</p>
<button class="quiet" name="do" value="resume">{{ words.resume }}</button>
{% else %}
<p>{{ words.pause_text }}</p>
<button class="quiet" name="do" value="pause_30">{{ words.pause_30 }}</button>
<button class="quiet" name="do" value="pause_90">{{ words.pause_90 }}</button>
{% endif %}
</form>
{% endif %}
<h2>{{ words.nothing_title }}</h2>
<form method="post">
<button class="quiet" name="do" value="nothing">{{ words.nothing }}</button>
</form>
{% endif %}
{% if name == "unsubscribe" %}
<form method="post">
<input type="hidden" name="List-Unsubscribe" value="One-Click">
<button>{{ words.button }}</button>
</form>
{% elif name == "score" %}
<form method="post" accept-charset="utf-8">
<fieldset>
<legend>{{ words.about[about].legend }}</legend>
<div class="scale{{ " long" if scores|length > 5 }}">
{% for n in scores %}
<label><input type="radio" name="score" value="{{ n }}"{{ " checked" if n == score }}><span>{{ n }}</span></label>
{% endfor %}
</div>
<p class="ends"><span>{{ scores[0] }} = {{ words.about[about].low }}</span><span>{{ scores[-1] }} = {{ words.about[about].high }}</span></p>
</fieldset>
<label class="comment" for="comment">{{ words.comment }}</label>
<textarea id="comment" name="comment" rows="4" maxlength="{{ limit }}"></textarea>
<button>{{ words.button }}</button>
</form>
{% endif %}
<p class="help">{{ common.help }} <a href="mailto:{{ shop.support_email }}">{{ shop.support_email }}</a></p>
</main>
</body>
</html>
"""

_STYLE = """
* { box-sizing: border-box }
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
body {
  margin: 0; background: var(--page); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.6 system-ui, "Segoe UI", Roboto, "Noto Sans", "Noto Sans KR", "Noto Sans JP", sans-serif
}
main { max-width: 34rem; margin: 6vh auto; padding: 2rem 1.75rem; background: var(--card); border-radius: 14px }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .25rem 0 1rem }
a { color: var(--accent) }
.shop { font-weight: 700; margin: 0 }
.help, .ends { color: var(--soft); font-size: .875rem }
.help { margin: 1.75rem 0 0 }
button, textarea { font: inherit; border-radius: 8px }
button {
  min-height: 48px; padding: .75rem 1.75rem; border: 0; font-weight: 600; cursor: pointer;
  background: var(--accent); color: var(--on_accent)
}
:focus-visible, input:focus-visible + span { outline: 3px solid var(--ink); outline-offset: 2px }
button.quiet { background: transparent; color: var(--accent); border: 1px solid var(--accent); margin: 0 .5rem .5rem 0 }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.topic { display: flex; gap: .75rem; align-items: flex-start; padding: .75rem 0; min-height: 48px }
.topic input { width: 24px; height: 24px; flex: none; accent-color: var(--accent) }
.done { padding: .75rem 1rem; border-radius: 8px; background: var(--tint); font-weight: 600 }
fieldset { border: 0; margin: 0 0 1.25rem; padding: 0 }
legend { padding: 0; font-weight: 600; margin-bottom: .5rem }
.scale { display: flex; gap: .5rem }
.scale label { flex: 1; position: relative }
.long { flex-wrap: wrap }
.long label { flex: 1 0 44px }
.scale input { position: absolute; opacity: 0; inset: 0; width: 100%%; height: 100%%; margin: 0; cursor: pointer }
.scale span {
  display: block; text-align: center; font-weight: 700; font-size: 1.15rem; line-height: 48px;
  border: 1px solid var(--accent); border-radius: 8px; background: var(--tint)
}
.scale input:checked + span { background: var(--accent); color: var(--on_accent) }
.ends { display: flex; justify-content: space-between; margin: .4rem 0 0 }
.comment { display: block; font-weight: 600; margin-bottom: .35rem }
textarea {
  width: 100%%; padding: .75rem; margin-bottom: 1rem; border: 1px solid var(--soft);
  background: var(--card); color: var(--ink)
}
@media (max-width: 479px) { main { margin: 0; min-height: 100vh; border-radius: 0 } button { width: 100%% } }
"""


@lru_cache(maxsize=8)
def _style(look: Colours) -> tuple[str, str]:
    """Our one style block, and the policy that allows it by its hash, and nothing else: no script, frame or picture."""
    colours = look.model_dump()
    light = {key: value for key, value in colours.items() if not key.startswith("dark_")}
    dark = {key.removeprefix("dark_"): value for key, value in colours.items() if key.startswith("dark_")}
    style = _STYLE % {
        name: " ".join(f"--{key}: {value};" for key, value in of.items())
        for name, of in (("light", light), ("dark", dark))
    }
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = f"style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    return style, f"default-src 'none'; {allowed}"


Words = Mapping[str, object]
TEXTS: Mapping[str, Mapping[str, Words]] = {
    "en": {
        "common": {"help": "Questions? Write to"},
        "unsubscribe": {
            "title": "No more news and offers?",
            "text": [
                "Press the button, and {shop} sends you no more news, offers or questions by mail.",
                "Mails about your own orders still come, so that you know where your parcel is.",
            ],
            "button": "Unsubscribe",
        },
        "unsubscribed": {
            "title": "You are unsubscribed",
            "text": [
                "{shop} sends you no more news, offers or questions by mail. It holds from now on.",
                "Mails about your own orders still come.",
            ],
        },
        "preferences": {
            "title": "Choose what we send",
            "text": ["Mails about your own orders always come. Everything else is up to you."],
            "whose": "This is about",
            "legend": "I would like to get",
            "save": "Save",
            "pause": "A break?",
            "pause_text": "Nothing but mails about your orders for a while; then everything as chosen above.",
            "pause_30": "30 days",
            "pause_90": "90 days",
            "paused": "On a break until {day}.",
            "resume": "End the break",
            "nothing_title": "Nothing at all?",
            "nothing": "Unsubscribe from everything",
            "old": "This link is older than 90 days. The newest of our mails has a fresh one; unsubscribing always works.",
            "suppressed": "We do not write to this address at the moment. Write to us if that is to change.",
            "done": {
                "save": "Saved. It holds from now on.",
                "pause_30": "The break has begun.",
                "pause_90": "The break has begun.",
                "resume": "The break is over.",
                "nothing": "You are unsubscribed from everything. It holds from now on.",
            },
        },
        "score": {
            "title": "Thank you. Is this right?",
            "text": ["You chose {score} of {most}. Change it if you like, then send it."],
            "about": {
                "item": {"legend": "The item", "low": "not for me", "high": "love it"},
                "delivery": {"legend": "The delivery", "low": "not good", "high": "just right"},
                "shop": {"legend": "Would you recommend us?", "low": "not likely", "high": "very likely"},
            },
            "comment": "Anything to add? (not required)",
            "button": "Send my answer",
        },
        "scored": {
            "title": "Thank you",
            "text": ["Your answer, {score} of {most}, has arrived. A person reads it."],
        },
        "home": {"title": "Nothing to do here", "text": ["These pages open from the links in our mails."]},
        "not_found": {
            "title": "This link does not work",
            "text": [
                "It may have been cut off in the mail. Copy the whole address, or reply to the mail: we will help."
            ],
        },
        "slow_down": {
            "title": "One moment, please",
            "text": ["Too many links that do not work came from here. Try again in a minute."],
        },
        "unavailable": {
            "title": "Not just now",
            "text": ["Nothing has been stored yet. Please try again in a minute."],
        },
    },
    "ko": {
        "common": {"help": "궁금한 점이 있으면 메일을 보내 주세요:"},
        "unsubscribe": {
            "title": "소식과 혜택 메일을 그만 받으시겠어요?",
            "text": [
                "버튼을 누르시면 {shop}에서 보내는 소식, 혜택, 설문 메일이 더 이상 가지 않습니다.",
                "주문과 배송에 관한 안내 메일은 계속 보내 드립니다.",
            ],
            "button": "수신 거부",
        },
        "unsubscribed": {
            "title": "수신 거부가 완료되었습니다",
            "text": [
                "지금부터 {shop}의 소식, 혜택, 설문 메일을 보내지 않습니다.",
                "주문과 배송에 관한 안내 메일은 계속 보내 드립니다.",
            ],
        },
        "preferences": {
            "title": "받으실 메일을 골라 주세요",
            "text": ["주문에 관한 안내 메일은 항상 보내 드립니다. 나머지는 직접 정하실 수 있습니다."],
            "whose": "설정 대상:",
            "legend": "받고 싶은 메일",
            "save": "저장",
            "pause": "잠시 쉬어 갈까요?",
            "pause_text": "정해진 기간 동안 주문 안내만 보내 드리고, 그 뒤에는 위에서 고르신 대로 보내 드립니다.",
            "pause_30": "30일",
            "pause_90": "90일",
            "paused": "{day}까지 쉬는 중입니다.",
            "resume": "다시 받기",
            "nothing_title": "아무것도 받고 싶지 않으세요?",
            "nothing": "모두 수신 거부",
            "old": "90일이 지난 링크입니다. 최근 메일의 링크를 이용해 주세요. 수신 거부는 언제든 가능합니다.",
            "suppressed": "현재 이 주소로는 메일을 보내지 않습니다. 변경을 원하시면 메일로 알려 주세요.",
            "done": {
                "save": "저장했습니다. 지금부터 적용됩니다.",
                "pause_30": "쉬는 기간이 시작되었습니다.",
                "pause_90": "쉬는 기간이 시작되었습니다.",
                "resume": "쉬는 기간이 끝났습니다.",
                "nothing": "모두 수신 거부했습니다. 지금부터 적용됩니다.",
            },
        },
        "score": {
            "title": "고맙습니다. 이 점수가 맞나요?",
            "text": ["{most}점 만점에 {score}점을 고르셨습니다. 바꾸신 뒤 보내셔도 됩니다."],
            "about": {
                "item": {"legend": "상품", "low": "아쉬워요", "high": "아주 좋아요"},
                "delivery": {"legend": "배송", "low": "아쉬웠어요", "high": "딱 좋았어요"},
                "shop": {"legend": "저희를 추천하시겠어요?", "low": "추천하지 않을래요", "high": "꼭 추천할래요"},
            },
            "comment": "더 하실 말씀이 있나요? (선택)",
            "button": "답변 보내기",
        },
        "scored": {
            "title": "고맙습니다",
            "text": ["{most}점 만점에 {score}점으로 답변이 접수되었습니다. 담당자가 직접 읽습니다."],
        },
        "home": {"title": "안내", "text": ["이 페이지는 메일에 있는 링크로 열립니다."]},
        "not_found": {
            "title": "사용할 수 없는 링크입니다",
            "text": ["메일에서 주소가 잘렸을 수 있습니다. 주소 전체를 복사하시거나 메일에 답장해 주세요."],
        },
        "slow_down": {
            "title": "잠시만 기다려 주세요",
            "text": ["잘못된 링크 요청이 너무 많았습니다. 1분 뒤에 다시 시도해 주세요."],
        },
        "unavailable": {
            "title": "지금은 처리할 수 없습니다",
            "text": ["아직 저장되지 않았습니다. 1분 뒤에 다시 시도해 주세요."],
        },
    },
    "ja": {
        "common": {"help": "ご不明な点はこちらまでご連絡ください:"},
        "unsubscribe": {
            "title": "お知らせメールの配信を停止しますか?",
            "text": [
                "ボタンを押すと、{shop} からのお知らせ・特典・アンケートのメールは届かなくなります。",
                "ご注文や配送に関するメールは引き続きお送りします。",
            ],
            "button": "配信を停止する",
        },
        "unsubscribed": {
            "title": "配信を停止しました",
            "text": [
                "今後、{shop} からのお知らせ・特典・アンケートのメールはお送りしません。",
                "ご注文や配送に関するメールは引き続きお送りします。",
            ],
        },
        "preferences": {
            "title": "お届けする内容をお選びください",
            "text": ["ご注文に関するメールは必ずお送りします。それ以外はお選びいただけます。"],
            "whose": "対象のアドレス:",
            "legend": "受け取りたいメール",
            "save": "保存する",
            "pause": "しばらくお休みしますか?",
            "pause_text": "期間中はご注文に関するメールだけをお送りし、その後は上の設定に戻ります。",
            "pause_30": "30 日間",
            "pause_90": "90 日間",
            "paused": "{day} までお休み中です。",
            "resume": "お休みを終える",
            "nothing_title": "すべて不要ですか?",
            "nothing": "すべての配信を停止する",
            "old": "このリンクは 90 日を過ぎています。最新のメールのリンクをご利用ください。配信停止はいつでもできます。",
            "suppressed": "現在このアドレスにはお送りしていません。変更をご希望の場合はご連絡ください。",
            "done": {
                "save": "保存しました。今から適用されます。",
                "pause_30": "お休みを開始しました。",
                "pause_90": "お休みを開始しました。",
                "resume": "お休みを終了しました。",
                "nothing": "すべての配信を停止しました。今から適用されます。",
            },
        },
        "score": {
            "title": "ありがとうございます。こちらでよろしいですか?",
            "text": ["{most} 点中 {score} 点をお選びになりました。変更してから送信することもできます。"],
            "about": {
                "item": {"legend": "商品", "low": "合わなかった", "high": "とても気に入った"},
                "delivery": {"legend": "配送", "low": "よくなかった", "high": "申し分ない"},
                "shop": {"legend": "当店をすすめたいと思いますか", "low": "すすめない", "high": "ぜひすすめたい"},
            },
            "comment": "ご意見がありましたらお聞かせください(任意)",
            "button": "回答を送信する",
        },
        "scored": {
            "title": "ありがとうございました",
            "text": ["{most} 点中 {score} 点のご回答を受け付けました。担当者が拝見します。"],
        },
        "home": {"title": "ご案内", "text": ["このページは、メール内のリンクから開きます。"]},
        "not_found": {
            "title": "このリンクはご利用いただけません",
            "text": [
                "メール内でアドレスが途中で切れている可能性があります。アドレス全体をコピーするか、メールにご返信ください。担当者がご案内します。"
            ],
        },
        "slow_down": {
            "title": "しばらくお待ちください",
            "text": ["無効なリンクへのアクセスが多すぎます。1 分後にもう一度お試しください。"],
        },
        "unavailable": {
            "title": "ただいま処理できません",
            "text": ["まだ保存されていません。1 分後にもう一度お試しください。"],
        },
    },
}

_env = Environment(loader=DictLoader({"frame": _FRAME}), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(name: str, language: str, theme: Theme, values: Mapping[str, object]) -> tuple[str, str]:
    """The page `name` in `language` and its Content-Security-Policy; everything that is not ours is escaped."""
    texts = TEXTS[language]
    style, policy = _style(theme.colours)
    own = {
        "name": name,
        "language": language,
        "words": texts[name],
        "common": texts["common"],
        "shop": theme.shop,
        "style": style,
    }
    return _env.get_template("frame").render(
        {"score": "", "scores": (), "about": "item", "limit": 0} | _NOTHING_CHOSEN | dict(values) | own
    ), policy


_NOTHING_CHOSEN: dict[str, object] = {
    "done": "", "old": False, "topics": (), "agreed": (), "masked": "", "paused": "", "suppressed": None,
}  # fmt: skip


def language(known: str | None, accepted: str) -> str:
    """The customer's language if we speak it, else the first of the browser's that we speak, else English."""
    wanted = [known or "", *(entry for _, entry in sorted(_preferences(accepted)))]
    return next(
        (code for word in wanted if (code := word.replace("_", "-").split("-")[0].strip().lower()) in TEXTS), "en"
    )


def _preferences(accepted: str) -> list[tuple[float, str]]:
    """Accept-Language as (-quality, language), cut to what a browser would send."""
    found = []
    for entry in accepted[:500].split(",")[:20]:
        word, _, quality = entry.partition(";q=")
        try:
            found.append((-float(quality or 1), word.strip()))
        except ValueError:
            continue
    return found
