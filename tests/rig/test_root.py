"""Tests of how root.py reads the host's settings; no root is built here."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.rig import root as rig_root

_DEBIAN = 'PRETTY_NAME="Debian GNU/Linux"\nID=debian\n'
_DEB822 = """\
Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# the archive itself
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""


def _etc(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("ETC", str(folder)))
    return folder


@pytest.mark.skipif(not rig_root.KEYRING.exists(), reason="needs debian-archive-keyring")
@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"apt/sources.list.d/debian.sources": _DEB822}, id="deb822"),
        pytest.param({"apt/sources.list": "deb http://mirror.example/debian bookworm main\n"}, id="one line"),
        pytest.param(
            {
                "apt/sources.list": "# deb http://old.example/debian bookworm main\n"
                "deb-src http://source.example/debian bookworm main\n"
                "deb http://archive.raspberrypi.com/debian bookworm main\n"
                "deb http://deb.debian.org/debian-security bookworm-security main\n"
                "deb [arch=amd64 signed-by=/a.gpg] http://mirror.example/debian bookworm main # ours\n"
            },
            id="among others",
        ),
        pytest.param(
            {
                "apt/sources.list.d/debian.sources": _DEB822.replace(
                    "http://mirror.example/debian", "mirror+file:ETC/apt/mirrors/debian.list"
                ),
                "apt/mirrors/debian.list": "http://mirror.example/debian\n",
            },
            id="list of mirrors",
        ),
        pytest.param(
            {
                "apt/sources.list.d/a.sources": _DEB822.replace("mirror", "off").replace("Types", "Enabled: no\nTypes"),
                "apt/sources.list.d/b.sources": _DEB822,
            },
            id="one is disabled",
        ),
    ],
)
def test_debian_packages_come_from_the_mirror_of_the_system(tmp_path: Path, files: Mapping[str, str]) -> None:
    etc = _etc(tmp_path, {"os-release": _DEBIAN, **files})
    expected = f"deb [signed-by={rig_root.KEYRING}] http://mirror.example/debian {rig_root.SUITE} main"
    assert rig_root.debian_source(etc) == expected


@pytest.mark.parametrize(
    ("release", "sources", "reason"),
    [
        ("ID=fedora\n", "deb http://mirror.example/debian bookworm main\n", "needs Debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "deb http://mirror.example/debian bookworm main\n", "needs Debian"),
        ("", "deb http://mirror.example/debian bookworm main\n", "needs Debian"),
    ],
)
def test_another_system_than_debian_is_an_error(tmp_path: Path, release: str, sources: str, reason: str) -> None:
    etc = _etc(tmp_path, {"os-release": release, "apt/sources.list": sources})
    with pytest.raises(rig_root.CannotMake, match=reason):
        rig_root.debian_source(etc)


def test_pip_settings_come_from_files_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, wheels = tmp_path / "index/simple", tmp_path / "wheels"
    index.mkdir(parents=True)
    wheels.mkdir()
    _etc(
        tmp_path,
        {
            ".config/pip/pip.conf": f"[global]\nextra-index-url = file://{index}\n  https://index.example/simple\n"
            f"find-links = {wheels}\ntimeout = 5\n[install]\nuser = true\n"
        },
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    settings, lent = rig_root.pip_settings()
    assert settings["PIP_EXTRA_INDEX_URL"] == f"file://{index} https://index.example/simple"
    assert settings["PIP_TIMEOUT"] == "7"
    assert "PIP_USER" not in settings
    assert lent[str(index.parent)] == index.parent.resolve()
    assert lent[str(wheels)] == wheels.resolve()
