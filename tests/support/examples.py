"""The documented examples of other camera services, in `tests/process/examples`, with the address of a portal."""

import re
from pathlib import Path

from tests.support.http_client import Listening

EXAMPLES = Path(__file__).resolve().parents[1] / "process" / "examples"
_HOST = re.compile(r"http://(raspberrypi|localhost|reachy-mini\.local|<IP_DU_PI>):8000")


def example(name: str, portal: Listening, folder: Path) -> Path:
    """Write the example with the address of this portal to the test's folder."""
    text = _HOST.sub(portal.url, (EXAMPLES / name).read_text())
    assert portal.url in text
    path = folder / name.removesuffix(".txt")
    path.write_text(text)
    return path
