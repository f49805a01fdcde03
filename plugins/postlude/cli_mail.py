"""`postlude preview`, `postlude test-send`, `postlude lint`: look at mails before anybody gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from postlude.errors import InputError

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
CampaignArg = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A campaign id; or a template, FAMILY/NAME.")]
Customer = Annotated[
    str, typer.Option("--customer", help="Render for this customer (id or address) instead of a sample person.")
]
Locale = Annotated[str, typer.Option("--locale", help="Language, e.g. ko. Default: all there are, or the customer's.")]
Step = Annotated[str, typer.Option("--step", help="Only this step. Default: all.")]


@app.command()
def lint(
    templates: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEMPLATE]...", help="FAMILY/NAME, or FAMILY for all its mails. Default: all."),
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask every fixed address whether it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check mails as people see them: links, alt texts, size, styles, contrast, text part, awkward names. Exit 1 on faults."""
    from postlude import cli, mail_lint

    found = mail_lint.lint(templates or (), online=online)
    if as_json:
        cli.show(
            {"faults": [vars(fault) for fault in found.faults], "warnings": [vars(w) for w in found.warnings]}, True
        )
    else:
        for warning in found.warnings:
            cli.console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        for fault in found.faults:
            cli.console.print(str(fault), style="red", markup=False, highlight=False, soft_wrap=True)
        if not found.faults:
            cli.console.print(f"{found.templates} templates are in order.")
    if found.faults:
        raise typer.Exit(1)


@app.command()
def preview(
    campaign: CampaignArg,
    customer: Customer = "",
    awkward: Annotated[bool, typer.Option("--awkward", help="For people with awkward names and gaps, too.")] = False,
    locale: Locale = "",
    step: Step = "",
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for the pages. Default: preview in the home of Postlude.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the mails of a campaign as pages for the browser: phone, desktop, text, subject. Nothing is sent or stored."""
    from postlude import cli, mail_preview

    pages = mail_preview.write_pages(campaign, customer, awkward, locale, step, to)
    cli.show(
        {"pages": [str(page) for page in pages] if as_json else len(pages), "open": pages[0].resolve().as_uri()},
        as_json,
    )


@app.command("test-send")
def test_send(
    campaign: CampaignArg,
    to: Annotated[str, typer.Option("--to", help="Who gets the test.")],
    customer: Customer = "",
    locale: Locale = "",
    step: Step = "",
    as_json: AsJson = False,
) -> None:
    """Send a campaign's mails to one address, marked as a test. Without POSTLUDE_SENDING they end in the catcher."""
    from postlude import cli, mail_preview

    if not to.strip():
        raise InputError("--to needs a mail address")
    with cli.catcher_at_hand() as seen:
        sent: dict[str, Any] = mail_preview.send_test(campaign, to, customer, locale, step)
    cli.show(sent | ({"see": seen} if seen else {}), as_json)
