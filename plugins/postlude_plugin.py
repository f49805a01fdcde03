"""Postlude's pages in the Airflow UI: stop mail, why, the newest report, Data Docs, the mail catcher.

Every task process loads this file, so it registers a callable and imports FastAPI only when the api-server gets the
first request. Airflow does not guard what a plugin mounts: each route below depends on Airflow's login.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

from postlude.pages import PAGES
from postlude.settings import settings


def pages() -> Any:
    """The app behind /postlude, with Airflow's login before every route of it.

    Whoever may edit the DAG `deliver` may stop mail and look people up by id; whoever may see plugins may read the rest. Who
    people are is a right of its own: *can edit* on `Postlude customers` where rights are made by name (FAB); the simple
    login, which has no rights by name, gives it to the roles that may see secrets (op, admin).
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagDetails
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view

    from postlude import db
    from postlude.orchestration import use_connection, wall_clock
    from postlude.pages.app import Deps, make

    def steering(user: GetUserDep) -> str | None:
        may = get_auth_manager().is_authorized_dag(method="PUT", details=DagDetails(id="deliver"), user=user)
        return (user.get_name() or user.get_id()) if may else None

    def knowing(user: GetUserDep) -> str | None:
        manager = get_auth_manager()
        if isinstance(manager, SimpleAuthManager):
            may = manager.is_authorized_connection(method="PUT", user=user)
        else:
            may = manager.is_authorized_custom_view(method="PUT", resource_name="Postlude customers", user=user)
        return (user.get_name() or user.get_id()) if may else None

    def engine() -> Any:
        use_connection()
        return db.default_engine()

    see = requires_access_view(AccessView.PLUGINS)
    return make(
        Deps(see=see, steering=steering, knowing=knowing, engine=engine, clock=wall_clock, home=settings().home)
    )


class OnFirstRequest:
    """An ASGI app that is made when it is first called."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.app = functools.cache(make)

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await self.app()(scope, receive, send)


class DataDocsLink(BaseOperatorLink):
    """A button on every check task: the Data Docs of this very run, once they are written."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        gate = re.search(r"(?:^|\.)check_(\w+)$", ti_key.task_id)
        if not gate:
            return ""  # Airflow shows no button
        run = re.sub(r"[^\w.-]", "-", f"{ti_key.dag_id}/{ti_key.run_id}")
        found = sorted((settings().home / "data_docs" / gate[1]).glob(f"{run}*/index.html"))
        # one page per source where the check is mapped: several of them are chosen from the list
        page = f"{gate[1]}/{found[0].parent.name}/" if len(found) == 1 else ""
        return f"/postlude/docs/{quote(page)}" if found else ""


class PostludePlugin(AirflowPlugin):
    name = "postlude"
    global_operator_extra_links = [DataDocsLink()]  # noqa: RUF012
    fastapi_apps = [  # noqa: RUF012
        {"app": OnFirstRequest(pages), "url_prefix": "/postlude", "name": "postlude"}
    ]
    external_views = [  # noqa: RUF012
        *(
            {"name": name, "href": f"postlude/{page}", "destination": "nav", "url_route": f"postlude-{page}"}
            for page, (name, _) in PAGES.items()
        ),
        {"name": "Postlude report", "href": "postlude/report", "destination": "nav", "url_route": "postlude-report"},
        {"name": "Data Docs", "href": "postlude/docs/", "destination": "nav", "url_route": "postlude-docs"},
        {"name": "Mail catcher", "href": f"http://127.0.0.1:{settings().catcher_http_port}/", "destination": "nav"},
    ]
