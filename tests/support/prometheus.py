"""Debian's Prometheus and its promtool, unpacked in .cache/prometheus: installing the package would start a server.

`python3 -m tests.support.prometheus` unpacks them in advance.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.conftest import PROJECT
from tests.support.background import eventually
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S

_CACHE = PROJECT / ".cache" / "prometheus"
_BIN = _CACHE / "usr" / "bin"
_READY = "Server is ready to receive web requests"
_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')
FILES = PROJECT / "integrations" / "monitoring"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test if there is none."""
    found = shutil.which(name) or str(_BIN / name)
    if not Path(found).exists():
        pytest.skip(f"needs {name}: python3 -m tests.support.prometheus")
    return found


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must succeed; its output."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Server:
    """A running Prometheus that scrapes and evaluates every second."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """The samples of an instant query."""
        query = urllib.parse.urlencode({"query": expression})
        return list(self._get(f"/api/v1/query?{query}")["result"])

    def firing(self, instance: str) -> set[str]:
        """The names of the alerts that fire for an instance."""
        alerts = [each for each in self._get("/api/v1/alerts")["alerts"] if each["state"] == "firing"]
        return {each["labels"]["alertname"] for each in alerts if each["labels"]["instance"] == instance}

    def _get(self, path: str) -> Mapping[str, Any]:
        with urllib.request.urlopen(self._url + path, timeout=PATIENCE_S) as answer:
            data: Mapping[str, Any] = json.load(answer)["data"]
            return data


@contextmanager
def running(folder: Path, targets: Mapping[str, int]) -> Iterator[Server]:
    """Run Prometheus with the rules of the project, without their waiting times, on these ports of 127.0.0.1.

    `targets` are ports by the name of the instance.
    """
    rules = re.sub(r"(?m)^( +for:) \w+$", r"\1 0s", (FILES / "alerts.yml").read_text())
    (folder / "alerts.yml").write_text(rules)
    scraped = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance}} for instance, port in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "soft-stream", "static_configs": scraped}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            eventually(lambda: process.poll() is not None or _READY in _read(log), "Prometheus")
            found = _LISTENING.search(_read(log))
            assert found is not None, _read(log)
            yield Server(f"http://{found[1]}")
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _read(log: TextIO) -> str:
    log.seek(0)
    return log.read()


def unpack() -> None:
    """Download Debian's package and unpack it. Raises CalledProcessError."""
    if (_BIN / "promtool").exists() or (shutil.which("promtool") and shutil.which("prometheus")):
        return
    _CACHE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prometheus-", dir=_CACHE.parent) as folder:
        download = ("apt-get", "-q", "-o", "Acquire::Retries=3", "download", "prometheus")
        try:
            subprocess.run(download, cwd=folder, check=True)
        except subprocess.CalledProcessError:
            if os.geteuid() != 0:
                raise
            subprocess.run(("apt-get", "-q", "update"), check=False)
            subprocess.run(download, cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(("dpkg-deb", "-x", package, f"{folder}/root"), check=True)
        shutil.rmtree(_CACHE, ignore_errors=True)
        Path(folder, "root").rename(_CACHE)


if __name__ == "__main__":
    try:
        unpack()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"Prometheus cannot be unpacked: {error}")
