"""Sites, key and password of nginx in front of the portal."""

import pytest

from deploy import nginx
from deploy.system import Failed
from tests.unit.deploy.conftest import Site
from tests.unit.deploy.fake_host import FakeHost, listener

REASON = "nginx: [emerg] no such file: snippets/camera-soft-cam.conf"


@pytest.fixture
def installed(fake: FakeHost) -> FakeHost:
    """nginx, and release 1.0."""
    folder = fake.add_release("1.0")
    folder.rename(fake.host().release("1.0"))
    for name in ("sites-enabled", "sites-available", "snippets"):
        (fake.root / "etc/nginx" / name).mkdir(parents=True)
    fake.host().env_file.parent.mkdir()
    fake.active.add("nginx")
    return fake


def edit_site(fake: FakeHost, port: int) -> None:
    """A site that its owner edited; deploy.sh keeps it."""
    (fake.root / "etc/nginx/sites-available/camera-soft-cam0.conf").write_text(f"  listen {port};\n")


def test_sites(installed: FakeHost, site: tuple[int, type[Site]]) -> None:
    edit_site(installed, site[0])
    host = installed.host()
    nginx.install_sites(host, "1.0", [0])
    said = installed.said()
    assert f"nginx: the password of user camera is now the one in {host.nginx_password}" in said
    assert "camera-soft-cam0.conf was edited and is kept" in said
    assert (
        str((host.nginx / "sites-enabled/camera-soft-cam0.conf").readlink())
        == "../sites-available/camera-soft-cam0.conf"
    )
    key = host.nginx / "camera-soft-cam0.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ('proxy_set_header Authorization "";\n', 0o600)
    password = host.nginx_password
    hashed = host.nginx / "camera-soft-cam.htpasswd"
    assert (password.stat().st_mode & 0o777, hashed.stat().st_mode & 0o777) == (0o600, 0o640)
    assert len(password.read_text().strip()) >= 20
    assert password.read_text().strip() not in "\n".join(installed.calls) + said
    assert hashed.read_text() == "camera:$6$hash\n"
    assert installed.has_called("systemctl --quiet enable nginx")
    before = password.read_text()
    nginx.install_sites(host, "1.0", [0])
    assert password.read_text() == before


def hash_as_openssl(fake: FakeHost) -> None:
    """Fake hashes that depend on the salt."""
    fake.answer("^openssl passwd -6 -stdin$", (0, "$6$new$hash\n", ""))
    fake.answer("^openssl passwd -6 -salt old -stdin$", (0, "$6$old$hash\n", ""))


@pytest.mark.parametrize(
    ("users", "after"),
    [
        ("", "camera:$6$new$hash\n"),
        ("anna:$6$a$b\ncamera:$6$old$hash\n", "anna:$6$a$b\ncamera:$6$old$hash\n"),
        ("camera:$6$old$other\nanna:$6$a$b\n", "camera:$6$new$hash\nanna:$6$a$b\n"),
        ("anna:$6$a$b\n", "camera:$6$new$hash\nanna:$6$a$b\n"),
        ("camera:$apr1$x$y\n", "camera:$6$new$hash\n"),
    ],
)
def test_password_file_is_the_truth(installed: FakeHost, users: str, after: str) -> None:
    host = installed.host()
    host.nginx_password.write_text("my own password\n")
    host.nginx_users.write_text(users)
    (host.nginx / "camera-soft-cam0.key").write_text('proxy_set_header Authorization "";\n')
    hash_as_openssl(installed)
    nginx.renew_secrets(host, "1.0", [0])
    assert host.nginx_users.read_text() == after
    assert host.nginx_password.stat().st_mode & 0o777 == 0o600
    assert ("the password of user camera is now the one in" in installed.said()) == (users != after)


def test_user_that_was_added_by_hand_stays(installed: FakeHost) -> None:
    host = installed.host()
    host.nginx_users.write_text("camera:$apr1$x$y\n")
    (host.nginx / "camera-soft-cam0.key").write_text('proxy_set_header Authorization "";\n')
    nginx.renew_secrets(host, "1.0", [0])
    assert host.nginx_users.read_text() == "camera:$apr1$x$y\n"
    assert not host.nginx_password.exists()


def test_site_text(installed: FakeHost) -> None:
    installed.answer("reload-or-restart", (1, "", ""))
    with pytest.raises(Failed, match="nginx does not start: sudo journalctl -u nginx; new sites are disabled again"):
        nginx.install_sites(installed.host(), "1.0", [3])
    site = installed.root / "etc/nginx/sites-available/camera-soft-cam3.conf"
    assert site.read_text() == "listen 8084;\nserver 127.0.0.1:18084; # 3\n"  # without IPv6, as the host has none
    (installed.root / "proc/net/if_inet6").touch()
    with pytest.raises(Failed):
        nginx.install_sites(installed.host(), "1.0", [3])
    assert "listen [::]:8084;" in site.read_text()


def test_site_that_nginx_rejects(installed: FakeHost) -> None:
    installed.answer("nginx -t", (1, "", f"{REASON}\nnginx: configuration file test failed\n"))
    link = installed.root / "etc/nginx/sites-enabled/camera-soft-cam0.conf"
    link.symlink_to("../sites-available/camera-soft-cam0.conf")
    with pytest.raises(Failed) as caught:
        nginx.install_sites(installed.host(), "1.0", [0, 1])
    assert str(caught.value) == f"nginx rejects the sites: {REASON}; new sites are disabled again"
    assert [path.name for path in link.parent.iterdir()] == [link.name]


@pytest.mark.parametrize("status", [200, 500])
def test_site_without_a_password(installed: FakeHost, site: tuple[int, type[Site]], status: int) -> None:
    site[1].status = status
    edit_site(installed, site[0])
    with pytest.raises(Failed, match=f"nginx does not request a password; maybe port {site[0]} is in use"):
        nginx.install_sites(installed.host(), "1.0", [0])


def test_site_that_does_not_answer(installed: FakeHost) -> None:
    assert not nginx.requires_password(installed.host(), 1)
    assert installed.passed_s == pytest.approx(5)


def test_nginx_without_sites_folder(fake: FakeHost) -> None:
    with pytest.raises(Failed, match=r"sites-enabled does not exist: see integrations/nginx/README\.md"):
        nginx.install_sites(fake.host(), "1.0", [0])


def test_key_that_cannot_be_read(installed: FakeHost) -> None:
    installed.answer("healthcheck.py nginx", (1, "", ""))
    with pytest.raises(Failed, match="camera 0: its key for nginx could not be read"):
        nginx.install_sites(installed.host(), "1.0", [0])


def test_renewed_key(installed: FakeHost) -> None:
    host = installed.host()
    key = host.nginx / "camera-soft-cam1.key"
    key.write_text("old\n")
    nginx.renew_secrets(host, "1.0", [0, 1])
    assert installed.said() == "camera 1: updated its key for nginx"
    assert key.stat().st_mode & 0o777 == 0o600
    assert installed.calls[-1] == "systemctl reload nginx"
    nginx.renew_secrets(host, "1.0", [0, 1])
    assert installed.said() == ""
    installed.answer("systemctl reload nginx", (1, "", ""))
    key.write_text("old\n")
    nginx.renew_secrets(host, "1.0", [1])
    assert "nginx could not be reloaded and uses the old key" in installed.said()


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("listen 8443 ssl;", 8443),
        ("# listen 80;\n    listen 127.0.0.1:9100;", 9100),
        ("listen *:9100;", 9100),
        ("listen [::]:9100 ipv6only=off;", 9100),
        ("listen unix:/run/8.sock;", 8083),
        ("", 8083),
    ],
)
def test_port_of_an_edited_site(installed: FakeHost, lines: str, port: int) -> None:
    (installed.root / "etc/nginx/sites-available/camera-soft-cam2.conf").write_text(f"server {{\n    {lines}\n}}\n")
    assert nginx.public_port(installed.host(), 2) == port


def test_preflight(installed: FakeHost) -> None:
    host = installed.host()
    nginx.preflight(host, [0])
    installed.answer("nginx -t", (1, "", REASON))
    nginx.preflight(host, [0])  # a problem of our own sites
    installed.answer("nginx -t", (1, "", "nginx: [emerg] unknown directive in other.conf"))
    with pytest.raises(Failed, match=r"nginx rejects its present configuration, nothing was changed: .* in other.conf"):
        nginx.preflight(host, [0])
    installed.answer("^ss ", (0, listener("10.0.0.10", 8081, pid=5), ""))
    with pytest.raises(
        Failed, match=r"camera 0: nginx's port 8081 is in use by another program .*, nothing was changed"
    ):
        nginx.preflight(host, [0])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((0, "", ""), ""),
        ((1, "", REASON), f"nginx rejects its configuration now and would not start again: {REASON}"),
        ((127, "", ""), ""),
    ],
)
def test_removed_sites(installed: FakeHost, answer: tuple[int, str, str], expected: str) -> None:
    host = installed.host()
    nginx.remove_sites(host)
    assert installed.calls == []
    edit_site(installed, 80)
    (host.nginx / "camera-soft-cam0.key").touch()
    host.nginx_password.touch()
    installed.answer("nginx -t", answer)
    nginx.remove_sites(host)
    assert installed.said() == expected
    assert [path for path in host.nginx.rglob("*") if "camera" in path.name] == []
    assert [*host.env_file.parent.iterdir()] == []
    assert installed.has_called("systemctl reload nginx") == (answer[0] == 0)
