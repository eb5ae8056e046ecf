"""Secrets in texts, shipped files that the owner edits, and atomic writes."""

from pathlib import Path

import pytest

from deploy import files
from tests.unit.deploy.fake_host import FakeHost


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("CAMERA_API_KEY=abc def", "CAMERA_API_KEY=(not shown)"),
        ("CAMERA_API_KEY = abc def", "CAMERA_API_KEY =(not shown)"),
        ("http://10.0.0.2/cam?a=b&auth=abc", "http://10.0.0.2/cam?a=b&auth=(not shown)"),
        ("-cam0_view_key='abc'", "-cam0_view_key=(not shown)"),
        ('-    proxy_set_header Authorization "Basic c2VjcmV0";', "-    proxy_set_header Authorization (not shown)"),
        ("    proxy_set_header X-API-Key abc;", "    proxy_set_header X-API-Key (not shown)"),
        ("Authorization: Bearer abc", "Authorization: (not shown)"),
        ("cam1_id=rtsp://user:pa/ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=rtsp://user:p@ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=http://10.0.0.2/cam?token=abc&width=3", "cam1_id=http://10.0.0.2/cam?token=(not shown)&width=3"),
        (
            "run-1.service: Ignoring invalid environment assignment 'export CAMERA_API_KEY=abc': /etc/env",
            "run-1.service: Ignoring invalid environment assignment 'export CAMERA_API_KEY=(not shown)",
        ),
        ("    proxy_pass http://camera-soft-cam0;", "    proxy_pass http://camera-soft-cam0;"),
        ("    server_name camera.example.org;", "    server_name camera.example.org;"),
        ("+#CAMERA_WIDTH=1536", "+#CAMERA_WIDTH=1536"),
    ],
)
def test_secrets_are_not_shown(line: str, shown: str) -> None:
    assert files.redact(line) == shown


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (
            "nginx: [emerg] unknown directive\nnginx: configuration file test failed\n",
            "nginx: [emerg] unknown directive",
        ),
        ("one\ntwo\n\n", "two"),
        ("", ""),
    ],
)
def test_reason(output: str, shown: str) -> None:
    assert files.reason(output) == shown


@pytest.mark.parametrize(
    "edited",
    [
        "CAMERA_API_KEY = hunter2",
        "CAMERA_API_KEY='hunter2",
        "CAMERA_API_KEY=\\\nhunter2=\\\n#hunter2=1",
        "CAMERA_RTSP_URL=rtsp://host/hunter2",
        "#CAMERA_VIEW_KEY=hunter2",
        "export CAMERA_API_KEY=hunter2",
        "OTHER=hunter2",
    ],
)
def test_nothing_of_an_edited_file_is_shown(fake: FakeHost, edited: str) -> None:
    host = fake.host()
    host.env_file.parent.mkdir()
    text = f"# help\n#CAMERA_WIDTH=1536\n{edited}\n"
    host.env_file.write_text(text)
    shipped = "# other help\n#CAMERA_WIDTH=1536\n\n#CAMERA_NEW=1\n CAMERA_API_KEY = s3cret\nCAMERA_VIEW_KEY=s3cret\n"
    files.ship(host, shipped.encode(), host.env_file, 0o600, earlier="#CAMERA_API_KEY=\n")
    shown = ["    +#CAMERA_NEW=1", "    +CAMERA_VIEW_KEY=(not shown)"]
    assert fake.lines[1:] == (shown[:1] if "VIEW_KEY" in edited else shown)
    assert host.env_file.read_text() == text


@pytest.mark.parametrize(
    ("current", "earlier", "new"),
    [
        ("CAMERA_WIDTH=640", "", ["#CAMERA_NEW=1"]),
        ("camera_width = 640", "", ["#CAMERA_NEW=1"]),
        ("CAMERA_NEW=2", "", ["#CAMERA_WIDTH=1536"]),
        ("", "#CAMERA_WIDTH=1280", ["#CAMERA_NEW=1"]),  # the owner removed it: known all the same
        ("", "# help\n#CAMERA_WIDTH=1536\n#CAMERA_NEW=1", []),
        ("#CAMERA_NEW=0\nCAMERA_WIDTH=1536", "", []),
    ],
)
def test_only_new_settings_are_shown(fake: FakeHost, current: str, earlier: str, new: list[str]) -> None:
    host = fake.host()
    host.env_file.parent.mkdir()
    host.env_file.write_text(f"{current}\n")
    files.ship(host, b"# help\n#CAMERA_WIDTH=1536\n#CAMERA_NEW=1\n", host.env_file, 0o600, earlier=earlier)
    assert fake.lines[0] == f"{host.env_file} was edited and is kept{'; new in the shipped file:' if new else ''}"
    assert fake.lines[1:] == [f"    +{line}" for line in new]


def test_only_new_lines_are_shown(fake: FakeHost) -> None:
    path = fake.root / "etc/site"
    path.write_text("listen 8443 ssl;\n")
    files.ship(fake.host(), b"# help\nlisten 8081;\n\ngzip off;\n", path, 0o644, earlier="listen 8081;\n")
    assert fake.lines[1:] == ["    +gzip off;"]


def test_equal_file_counts_as_shipped(fake: FakeHost) -> None:
    host = fake.host()
    host.env_file.parent.mkdir()
    host.env_file.write_text("#CAMERA_WIDTH=1536\n")
    files.ship(host, b"#CAMERA_WIDTH=1536\n", host.env_file, 0o600)
    assert not files.is_edited(host, host.env_file)
    files.ship(host, b"#CAMERA_WIDTH=1600\n", host.env_file, 0o600)
    assert host.env_file.read_text() == "#CAMERA_WIDTH=1600\n"
    assert fake.said() == ""


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "folder/file"
    files.write(path, b"one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not files.write(path, b"one")
    assert files.write(path, b"two", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o640)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(path, b"data")
    assert [*tmp_path.iterdir()] == [path]
