"""No file of the repository names a package index, somebody's directory or a key: it must work anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "names a package index": re.compile(
        r"--(?:extra-)?index-url\s+\S|--find-links\s+\S|https?://\S*/simple\b|https?://(?:pypi|nexus|artifactory|devpi|mirror)s?[.:]"
    ),
    "names somebody's directory": re.compile(
        r"(?<![\w.$}])/(?:home|Users)/[a-z][\w.-]*/|(?<![\w.$}])/root/\w|[A-Z]:\\Users\\"
    ),
    "holds a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{40}"),
    "has a merge mark": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
BIG = 2_000_000  # bytes


def tracked() -> list[Path]:
    """Files under version control, or about to be."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in sorted(set(names.stdout.decode().split("\0"))) if name and (path := ROOT / name).is_file()]


def faults(path: Path) -> list[str]:
    """What is wrong with one file."""
    if path.stat().st_size > BIG:
        return [f"is bigger than {BIG // 1_000_000} MB; keep data out of the repository"]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []  # an image
    return [
        f"line {text.count(chr(10), 0, found.start()) + 1} {what}: {found[0].splitlines()[0]}"
        for what, pattern in FORBIDDEN.items()
        for found in pattern.finditer(text)
    ]


def main() -> int:
    files = tracked()
    told = [f"{path.relative_to(ROOT)}: {fault}" for path in files for fault in faults(path)]
    print("\n".join(told) or f"{len(files)} files name no package index and nobody's directory")
    return 1 if told or not files else 0


if __name__ == "__main__":
    sys.exit(main())
