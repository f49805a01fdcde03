"""Prints .env.example with every empty secret filled in: python3 docker/make_env.py > .env"""

import base64
import os
import re
import secrets
from pathlib import Path

text = Path(__file__).resolve().parents[1].joinpath(".env.example").read_text(encoding="utf-8")


def fill(line: "re.Match[str]") -> str:
    fernet = base64.urlsafe_b64encode(os.urandom(32)).decode()
    return f"{line[1]}={fernet if line[1].endswith('FERNET_KEY') else secrets.token_hex(32)}"


print(re.sub(r"^(\w+(?:_PASSWORD|_SECRET|_KEY))=$", fill, text, flags=re.MULTILINE), end="")
