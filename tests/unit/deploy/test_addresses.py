"""What a deployment prints at its end: addresses, the user, and how to see the password."""

import pytest

from deploy import addresses, nginx
from deploy.cameras import take_inventory
from deploy.system import name_for_others
from tests.unit.deploy.fake_host import FakeHost


def add_site(fake: FakeHost, number: int, text: str = "listen 8081;\nserver_name _;\n") -> None:
    for name in ("sites-available", "sites-enabled"):
        (fake.root / "etc/nginx" / name).mkdir(parents=True, exist_ok=True)
    name = f"camera-soft-cam{number}.conf"
    (fake.root / "etc/nginx/sites-available" / name).write_text(text)
    (fake.root / "etc/nginx/sites-enabled" / name).symlink_to(f"../sites-available/{name}")


def report(fake: FakeHost, *settings: str, cameras: tuple[int, ...] = ()) -> list[str]:
    fake.settings = list(settings)
    folder = fake.add_release("1.0")
    folder.rename(fake.host().release("1.0"))
    host = fake.host(cameras=cameras)
    addresses.report(host, "1.0", take_inventory(host), [0, 1])
    return fake.said().splitlines()


def test_sites_of_nginx(fake: FakeHost) -> None:
    add_site(fake, 0)
    add_site(fake, 1, "  listen 8443 ssl;\n  listen [::]:8443 ssl;\n  server_name camera.example.org;\n")
    password = fake.host().nginx_password
    password.parent.mkdir()
    password.write_text("secret\n")
    assert report(fake) == [
        "camera 0: open http://camera.local:8081/",
        "camera 1: open https://camera.example.org:8443/",
        f"user: camera; password, on the host: sudo cat {password}",
    ]


def test_password_that_was_set_by_hand(fake: FakeHost) -> None:
    assert nginx.credentials(fake.host()) == f"user and password: those in {fake.host().nginx_users}, set by hand"


@pytest.mark.parametrize(
    ("cameras", "command"), [((), "deploy.sh --with-nginx"), ((0,), "deploy.sh --cameras 0,1 --with-nginx")]
)
def test_camera_without_a_site_is_offered_one(fake: FakeHost, cameras: tuple[int, ...], command: str) -> None:
    add_site(fake, 0)
    said = report(fake, cameras=cameras)
    place = "camera 1: on the host only, http://127.0.0.1:18082/"
    assert said[1] == f"{place}; {command} serves it at http://camera.local:8082/ with a password"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["CAMERA_HOST\t0.0.0.0"], "open http://camera.local:18081/ (without a password)"),
        (["CAMERA_HOST\t192.168.1.9"], "open http://192.168.1.9:18081/ (without a password)"),
        (["CAMERA_HOST\tfd00::9"], "open http://[fd00::9]:18081/ (without a password)"),
        (["CAMERA_HOST\t::", "cam0_api_key\tset"], "sudo grep -i api_key= .*/camera-soft-stream.env"),
        (["CAMERA_HOST\t::", "CAMERA_VIEW_KEY\tset"], "sudo grep -i view_key= .*/camera-soft-stream.env"),
    ],
)
def test_portal_that_is_open_to_the_network(fake: FakeHost, settings: list[str], line: str) -> None:
    said = report(fake, *settings)[0]
    if "grep" in line:
        _, _, after = line.partition("sudo ")
        assert "open http://camera.local:18081/ (any user; password, on the host: sudo " in said
        assert after.replace(".*", str(fake.host().env_file.parent)) in said
    else:
        assert said == f"camera 0: {line}"


def test_keys_of_rtsp(fake: FakeHost) -> None:
    file = fake.host().rtsp_file
    file.parent.mkdir()
    file.write_text("cam0_view_key=secret\n")
    assert report(fake, "CAMERA_HOST\t::")[0].endswith(f"sudo grep -i view_key= {file})")


def test_name_of_the_machine_itself(fake: FakeHost) -> None:
    fake.address = ""
    fake.answer("^hostname$", (0, "camera\n", ""))
    assert name_for_others(fake.host()) == "camera"
    fake.answer("^hostname -I$", (0, "192.168.1.20 fd00::2 \n", ""))
    assert name_for_others(fake.host()) == "192.168.1.20"
    fake.active.add("avahi-daemon")
    assert name_for_others(fake.host()) == "camera.local"
