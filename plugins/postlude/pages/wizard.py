"""A new campaign from one of the library: choose, adjust, look at it, simulate it, take the file away. Nothing here goes live.

The draft lives in the reader's page alone. What comes out is a YAML file or a patch for review; a campaign runs only once its
file stands in include/campaigns.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from postlude import campaign_checks, campaign_rules, rendering, trial, yamlfile
from postlude.campaign import Campaign, load_campaign
from postlude.errors import InputError
from postlude.pages import jobs, known
from postlude.pages.app import Deps, answer
from postlude.pages.segments import files as segment_files
from postlude.settings import settings
from postlude.words import words_of

AHEAD = 45


class Step(BaseModel):
    """A step of the pattern, as wished."""

    id: str = Field(max_length=60)
    keep: bool = True
    on_day: int | None = Field(None, ge=0, le=730)
    after: str = Field("", max_length=40)
    template: str = Field("", max_length=120)


class Draft(BaseModel):
    """A campaign that does not exist yet."""

    pattern: str = Field(max_length=100)
    id: str = Field(max_length=60)
    name: str = Field(max_length=200)
    owner: str = Field(max_length=100)
    description: str = Field("", max_length=1000)
    segment: str = Field("", max_length=100)  # for a pattern that starts with a segment
    holdout: float = Field(0.1, ge=0, le=0.5)
    steps: list[Step] = Field(max_length=40)


class Look(Draft):
    """One message of a draft."""

    step: str = Field(max_length=60)
    person: str = Field("ana", max_length=100)
    locale: str = Field("en", pattern=r"^[a-z]{2,3}([-_][A-Za-z]{2,4})?$")


class Asked(BaseModel):
    """A look ahead that was started."""

    job: str = Field(max_length=32)


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/api/wizard")
    def wizard(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        patterns = [
            {
                "id": one.id, "name": one.name, "description": one.description, "kind": one.kind, "owner": one.owner,
                "starts": one.trigger.in_words(), "segment": one.trigger.enters, "holdout": one.audience.holdout,
                "steps": [
                    {"id": step.id, "on_day": step.on_day, "after": _after(step), "template": step.template} for step in one.steps
                ],
            }
            for one in known.campaigns()
        ]  # fmt: skip
        segments = [{"id": one.id, "name": one.name} for one in segment_files()[0]]
        people = list(rendering.samples())
        return answer(
            {
                "patterns": patterns,
                "segments": segments,
                "templates": rendering.names(),
                "people": people,
                "may_steer": name is not None,
            }
        )

    @router.post("/api/wizard/draft")
    def draft(wished: Draft, _: Annotated[str, deps.steer()]) -> JSONResponse:
        text = written(wished)
        campaign, faults = read(wished, text)
        words = words_of(campaign) if campaign else []
        return answer(
            {
                "yaml": text, "patch": patch(wished.id, text), "faults": faults,
                "words": [{"heading": heading, "sentences": sentences} for heading, sentences in words],
            }
        )  # fmt: skip

    @router.post("/api/wizard/preview")
    def preview(look: Look, _: Annotated[str, deps.steer()]) -> JSONResponse:
        campaign = _sound(look)
        step, _template = trial.step_of(campaign, look.step)
        try:
            message = trial.as_invented(
                campaign, look.step, "", look.person, look.locale, campaign.offers(step)[0], deps.clock()
            )  # fmt: skip
        except rendering.RenderError as error:
            raise InputError(f"this person would not get it: {error.reason}") from None
        return answer({"subject": message.subject, "html": message.html, "text": message.text})

    @router.post("/api/wizard/simulate")
    def simulate(wished: Draft, _: Annotated[str, deps.steer()]) -> JSONResponse:
        _sound(wished)
        folder = beside(deps.home, wished.id, written(wished))
        asked = [
            "simulate",
            "--from",
            deps.clock().isoformat(),
            "--days",
            str(AHEAD),
            "--json",
            "{out}",
            "--folder",
            "{folder}",
        ]
        about = {"draft": wished.model_dump()}
        return answer(
            {"job": jobs.start(deps.home, deps.engine(), "wizard", asked, about, POSTLUDE_INCLUDE=str(folder))}
        )

    @router.post("/api/wizard/simulated")
    def simulated(asked: Asked, _: Annotated[str, deps.steer()]) -> JSONResponse:
        found = jobs.state(deps.home, asked.job)
        if not found["done"]:
            return answer(found)
        result = found["result"]
        return answer(
            {"done": True, "days": result["days"], "refusals": result["refusals"], "assumptions": result["assumptions"]}
        )

    return router


def _after(step: Any) -> str:
    return "" if step.after is None else yaml.safe_load(step.model_dump_json())["after"]


def written(wished: Draft) -> str:
    """The YAML of the draft: the pattern's file with what was changed; what is not asked about stays as it is there."""
    known.campaign(wished.pattern)  # it must be one that can be read
    path = settings().include / "campaigns" / f"{wished.pattern}.yml"
    said: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    said |= {"id": wished.id, "name": wished.name, "owner": wished.owner}
    if wished.description:
        said["description"] = wished.description
    if wished.segment and "enters" in said["trigger"]:
        said["trigger"] = said["trigger"] | {"enters": wished.segment}
    said["audience"] = {key: value for key, value in (said.get("audience") or {}).items() if key != "holdout"}
    if wished.holdout:
        said["audience"]["holdout"] = wished.holdout
    if not said["audience"]:
        del said["audience"]
    chosen = {step.id: step for step in wished.steps}
    said["steps"] = [
        _step(step, chosen.get(step["id"]))
        for step in said["steps"]
        if step["id"] not in chosen or chosen[step["id"]].keep
    ]
    head = "# yaml-language-server: $schema=../../docs/campaign.schema.json\n"
    order = ("id", "name", "description", "owner")
    lines = {key: said.pop(key) for key in order if key in said} | said
    steps = lines.pop("steps")
    body = "".join(_dumped({key: value}) for key, value in lines.items())
    return head + body + "steps:\n" + "".join(f"  - {_dumped(step, flow=True).strip()}\n" for step in steps)


def _step(step: dict[str, Any], wished: Step | None) -> dict[str, Any]:
    if wished is None:
        return step
    changed = dict(step)
    if wished.on_day is not None and "on_day" in step:
        changed["on_day"] = wished.on_day
    if wished.after and "after" in step:
        changed["after"] = wished.after
    if wished.template and "template" in step:
        changed["template"] = wished.template
    return changed


def _dumped(value: dict[str, Any], flow: bool | None = None) -> str:
    if flow is None:
        (inner,) = value.values()
        if isinstance(inner, dict):
            return f"{next(iter(value))}: {_dumped(inner, flow=True)}"
        flow = False
        if isinstance(inner, list):
            return f"{next(iter(value))}: {yaml.safe_dump(inner, default_flow_style=True, allow_unicode=True, width=10_000)}"
    return yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True, sort_keys=False, width=10_000)


def read(wished: Draft, text: str) -> tuple[Campaign | None, list[str]]:
    """The campaign of a draft, and everything that is wrong with it, in words."""
    file = f"{wished.id}.yml"
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,47}", wished.id):
        return None, [f'id: "{wished.id}" is no id; write lower-case letters, digits and _, e.g. spring_news']
    faults = [] if wished.id not in known.faults() else [f'id: there is a file "{file}" already, which has mistakes']
    if any(one.id == wished.id for one in known.campaigns()):
        faults.append(f'id: there is a campaign "{wished.id}" already; choose another id')
    if not any(step.keep for step in wished.steps):
        return None, [*faults, "steps: keep at least one"]
    try:
        campaign = yamlfile.parse(text, file, Campaign)
    except InputError as error:
        return None, [*faults, *(_told(fault) for fault in error.faults)]
    faults += [f"{yamlfile.key_of(at)}: {what}" for at, what in campaign_rules.broken(campaign)]
    # the pattern's own file tells the lines; only the words count here
    at = settings().include / "campaigns" / f"{wished.pattern}.yml"
    faults += [_told(fault) for fault in campaign_checks.faults_of(at, campaign)]
    return campaign, list(dict.fromkeys(faults))


def _told(fault: Any) -> str:
    return f"{fault.key}: {fault.message}" if fault.key else fault.message


def _sound(wished: Draft) -> Campaign:
    campaign, faults = read(wished, written(wished))
    if campaign is None or faults:
        raise InputError("; ".join(faults))
    return campaign


def patch(name: str, text: str) -> str:
    """The new file as a patch that `git apply` and pull requests take."""
    lines = text.splitlines()
    path = f"include/campaigns/{name}.yml"
    return "\n".join(
        [
            f"diff --git a/{path} b/{path}", "new file mode 100644", "--- /dev/null", f"+++ b/{path}", f"@@ -0,0 +1,{len(lines)} @@",
            *(f"+{line}" for line in lines), "",
        ]
    )  # fmt: skip


def beside(home: Path, name: str, text: str) -> Path:
    """A folder like include with the draft among its campaigns, for a simulation: nothing that runs looks there."""
    folder = home / "jobs" / "drafts" / name
    campaigns = folder / "campaigns"
    campaigns.mkdir(parents=True, exist_ok=True)
    for old in (*folder.iterdir(), *campaigns.iterdir()):
        if old.is_symlink():
            old.unlink()
    for there in settings().include.iterdir():
        if there.name != "campaigns":
            (folder / there.name).symlink_to(there.resolve())
    for there in (settings().include / "campaigns").glob("[!.]*.yml"):
        (campaigns / there.name).symlink_to(there.resolve())
    (campaigns / f"{name}.yml").write_text(text, encoding="utf-8")
    load_campaign(campaigns / f"{name}.yml")
    return folder
