"""The campaigns whose files can be read, read again only when a file has changed: pages ask for them with every request."""

from functools import lru_cache
from pathlib import Path

from postlude import pipeline
from postlude.campaign import Campaign, load_campaign
from postlude.errors import InputError


def campaigns() -> list[Campaign]:
    """Every campaign whose file can be read, in the order of their names: that is how readers look for one."""
    found = []
    for file in pipeline.campaign_files():
        try:
            found.append(_kept(file, _stamp(Path(file))))
        except InputError:  # its red DAG tells what is wrong with it
            continue
    return sorted(found, key=lambda one: one.name.casefold())


def campaign(wanted: str) -> Campaign:
    """One campaign. Raises InputError when there is none of this id, or its file has mistakes."""
    for file in pipeline.campaign_files():
        if Path(file).stem == wanted:
            return of(file)
    raise InputError(f'there is no campaign "{wanted}"')


def of(file: str) -> Campaign:
    """The campaign in this file. Raises InputError when it has mistakes."""
    return _kept(file, _stamp(Path(file)))


def faults() -> dict[str, str]:
    """Campaign id to what is wrong with its file."""
    found = {}
    for file in pipeline.campaign_files():
        try:
            _kept(file, _stamp(Path(file)))
        except InputError as error:
            found[Path(file).stem] = str(error)
    return found


def _stamp(path: Path) -> tuple[int, ...]:
    """When the file, and the tables it may name, were written."""
    tables = sorted((path.parents[1] / "tables").glob("*.yml"))
    return tuple(one.stat().st_mtime_ns for one in (path, *tables) if one.exists())


@lru_cache(maxsize=256)
def _kept(file: str, _stamp: tuple[int, ...]) -> Campaign:
    return load_campaign(Path(file))
