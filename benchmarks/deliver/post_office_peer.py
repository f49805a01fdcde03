"""The peer of run.py: django-post_office queues the same amount of mail in PostgreSQL and sends it to the same kind of sink.

Runs in an environment of its own (Django, psycopg, django-post_office); prints one line of JSON.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import django
from django.conf import settings


def main() -> None:
    job = json.loads(sys.argv[1])
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "peer", "USER": job["user"], "HOST": job["host"]}},
        EMAIL_BACKEND="post_office.EmailBackend", EMAIL_HOST="127.0.0.1", EMAIL_PORT=job["port"], SECRET_KEY="bench", USE_TZ=True,
        POST_OFFICE={"BACKENDS": {"default": "django.core.mail.backends.smtp.EmailBackend"}, "THREADS_PER_PROCESS": 8,
                     "BATCH_SIZE": 200, "TEMPLATE_ENGINE": "post_office"},
        TEMPLATES=[{"BACKEND": "post_office.template.backends.post_office.PostOfficeTemplates", "APP_DIRS": True, "NAME": "post_office",
                    "OPTIONS": {"context_processors": []}}],
    )  # fmt: skip
    django.setup()
    from django.core.management import call_command
    from post_office import mail
    from post_office.models import EmailTemplate

    call_command("migrate", verbosity=0)
    letter = json.loads(Path(job["letter"]).read_text(encoding="utf-8"))
    EmailTemplate.objects.create(
        name="bench", subject=letter["subject"], content=letter["text"], html_content=letter["html"]
    )
    template = EmailTemplate.objects.get(name="bench")
    mail.send_many(
        [
            {
                "sender": "news@shop.example",
                "recipients": [f"c{n}@customers.example"],
                "template": template,
                "context": {
                    **letter["context"],
                    "customer": {**letter["context"]["customer"], "first_name": f"Bo {n}"},
                },
                "render_on_delivery": True,
            }
            for n in range(job["messages"])
        ]
    )
    print("ready", flush=True)
    sys.stdin.readline()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.time()
    from post_office.mail import send_queued

    sent = failed = 0
    while sent + failed < job["messages"]:  # a batch each
        went, lost, _ = send_queued(processes=1, log_level=0)
        sent, failed = sent + went, failed + lost
    wall, after = time.time() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert failed == 0 and sent == job["messages"], (sent, failed)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"rate": sent / wall, "sender": cpu / sent, "version": version("django-post-office")}))


if __name__ == "__main__":
    main()
