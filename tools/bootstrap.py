"""Builds .venv from nothing but a Python, and brings it to what requirements/<name>.txt say. Called by make.

python tools/bootstrap.py VENV NAME...     e.g. .venv core dev

Standard library only. Every package is checked against its hash. uv does the work; pip, slower, where uv cannot.
"""

import os
import subprocess
import sys
import time

OLDEST, NEWEST = (3, 11), (3, 13)  # Airflow 3.3 runs on these
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(venv, names):
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"Postlude needs Python {dotted(OLDEST)} to {dotted(NEWEST)}; "
            f"{sys.executable} is {dotted(sys.version_info[:2])}.\n"
            "Install one, and name it: make PYTHON=/path/to/python3.12"
        )
    began = time.time()
    python = os.path.join(venv, "bin", "python")
    if not works(python):
        say(f"making {venv} with Python {dotted(sys.version_info[:2])}")
        if subprocess.call([sys.executable, "-m", "venv", "--clear", venv]):
            sys.exit("This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv")
    env = dict(os.environ, **index_of_pip(python))
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # without .pyc files, Airflow takes three times as long to start
    if not works(python, "uv"):
        pip(python, ["--require-hashes", "-r", requirements("bootstrap")], env)
    wanted = [part for name in names for part in ("-r", requirements(name))]
    files = " and ".join(f"requirements/{name}.txt" for name in names)
    say(f"installing {files} (some minutes the first time)")
    install(python, ["--require-hashes", *wanted], env)
    install(python, ["--no-deps", "--no-build-isolation", "-e", ROOT], env)
    say(f"{venv} is ready ({time.time() - began:.0f} s)")


def install(python, what, env):
    command = [python, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    if subprocess.call(command + what, env=env):
        say("uv could not (see above); trying pip")
        pip(python, what, env)


def pip(python, what, env):
    if subprocess.call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what], env=env):
        sys.exit(
            "The packages could not be installed; see above. A package index must be reachable, or configured for pip."
        )


def index_of_pip(python):
    """What pip is configured to install from, in uv's words: uv does not read pip's configuration."""
    said = subprocess.run(
        [python, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # any index may have it, as with pip; the hashes decide
    for line in said.stdout.decode().splitlines():  # later lines (the environment) win, as with pip
        key, _, value = line.partition("=")
        name = {
            "index-url": "UV_DEFAULT_INDEX",
            "extra-index-url": "UV_INDEX",
            "find-links": "UV_FIND_LINKS",
            "cert": "SSL_CERT_FILE",
        }
        words = value.strip("'\"").replace("\\n", " ").split()
        if words and key.split(".")[-1] in name:
            key = name[key.split(".")[-1]]
            found[key] = ("," if key == "UV_FIND_LINKS" else " ").join(words)
    return {key: value for key, value in found.items() if key not in os.environ}


def works(python, module="pip"):
    return os.path.exists(python) and not subprocess.call(
        [python, "-c", "import " + module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def requirements(name):
    return os.path.join(ROOT, "requirements", name + ".txt")


def dotted(version):
    return ".".join(map(str, version))


def say(text):
    print("postlude:", text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
