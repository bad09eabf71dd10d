"""Pages in a headless Chromium, where there is one: what they complain of, and how wide they are in a narrow frame."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
           "--enable-logging=stderr")  # fmt: skip
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def browse(folder, page, *options):
    """What the browser prints of a page that complains of nothing."""
    command = (CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri())
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=folder)
    assert ":CONSOLE:" not in done.stderr, done.stderr
    return done.stdout


def titled(dumped):
    """The JSON that a page left in its title."""
    return json.loads(unescape(re.findall(r"<title>(.*?)</title>", dumped, re.DOTALL)[0]))
