"""nginx in front of the portal: its sites, the password, the portal's key, and whether they work."""

import os
import re
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence

from deploy import files, instances
from deploy.system import Failed, Host, read_text

FIRST_PORT = 8081  # of camera 0
_PASSWORD_TRIES = 50


def public_port(host: Host, number: int) -> int:
    """The port that the site listens on; its owner may have edited it."""
    site = read_text(host.nginx / f"sites-available/camera-soft-cam{number}.conf")
    listen = re.search(r"(?m)^\s*listen\s+(?:[^;\s]*:)?(\d+)(?:[\s;].*)?$", site)
    return int(listen[1]) if listen else FIRST_PORT + number


def preflight(host: Host, numbers: Iterable[int]) -> None:
    """Raises Failed if nginx could not serve the cameras. Nothing was changed then."""
    for number in numbers:
        port = public_port(host, number)
        if instances.has_other_listener(host, port, read_text(host.path("run/nginx.pid")).split(), anywhere=True):
            raise Failed(f"camera {number}: nginx's {instances.port_in_use(port)}, nothing was changed")
    tested = host.run("nginx", "-t", "-q")
    # A problem of our own sites may be gone with the new ones.
    if tested.returncode != 0 and "camera-soft-cam" not in tested.stderr:
        raise Failed(f"nginx rejects its present configuration, nothing was changed: {files.reason(tested.stderr)}")


def _write_key(host: Host, release: str, number: int) -> bool:
    """Writes the directive that sends the portal's key; whether it changed."""
    done = instances.healthcheck(host, release, "nginx", number)
    if done.returncode != 0:
        raise Failed(f"camera {number}: its key for nginx could not be read")
    return files.write(host.nginx / f"camera-soft-cam{number}.key", f"{done.stdout.strip()}\n".encode(), 0o600)


def renew_keys(host: Host, release: str, numbers: Iterable[int]) -> None:
    """Updates the key of each camera that nginx serves, if the settings have another one now."""
    served = [number for number in numbers if (host.nginx / f"camera-soft-cam{number}.key").exists()]
    renewed = [number for number in served if _write_key(host, release, number)]
    for number in renewed:
        host.say(f"camera {number}: updated its key for nginx")
    if renewed and host.is_active("nginx") and not host.succeeds("systemctl", "reload", "nginx"):
        # Any site may be wrong, not only ours.
        host.say("nginx could not be reloaded and uses the old key: sudo nginx -t; then sudo systemctl reload nginx")


def install_sites(host: Host, release: str, numbers: Sequence[int]) -> None:
    """Installs and enables a site for each camera. If nginx does not work with them, new ones are disabled again."""
    enabled = host.nginx / "sites-enabled"
    if not enabled.is_dir():
        raise Failed(f"{enabled} does not exist: see integrations/nginx/README.md")
    _make_password(host)
    source = host.release(release) / "integrations/nginx"
    snippet = "camera-soft-cam.conf"
    files.ship(host, (source / snippet).read_bytes(), host.nginx / "snippets" / snippet, 0o644)
    added = []
    for number in numbers:
        name = f"camera-soft-cam{number}.conf"
        inside = instances.healthcheck(host, release, "port", number).stdout
        site = (source / "site.conf").read_text()
        for placeholder, value in (("@N@", number), ("@OUTSIDE@", FIRST_PORT + number), ("@INSIDE@", inside)):
            site = site.replace(placeholder, str(value))
        if not host.path("proc/net/if_inet6").exists():
            site = re.sub(r"(?m)^.*listen \[::\].*\n", "", site)
        files.ship(host, site.encode(), host.nginx / "sites-available" / name, 0o644)
        _write_key(host, release, number)
        if not os.path.lexists(enabled / name):
            added.append(enabled / name)
        files.link(enabled / name, f"../sites-available/{name}")
    try:
        _start(host, numbers)
    except Failed as error:
        for link in added:
            link.unlink(missing_ok=True)
        if host.succeeds("nginx", "-t", "-q") and host.is_active("nginx"):
            host.run("systemctl", "reload", "nginx")
        raise Failed(f"{error}; new sites are disabled again") from error
    host.run("systemctl", "--quiet", "enable", "nginx", check=True)


def _start(host: Host, numbers: Iterable[int]) -> None:
    tested = host.run("nginx", "-t", "-q")  # a broken site would keep nginx from starting at the next boot
    if tested.returncode != 0:
        raise Failed(f"nginx rejects the sites: {files.reason(tested.stderr)}")
    if not host.succeeds("systemctl", "reload-or-restart", "nginx"):
        raise Failed("nginx does not start: sudo journalctl -u nginx")
    for number in numbers:
        port = public_port(host, number)
        if not requires_password(host, port):
            raise Failed(f"nginx does not request a password; maybe {instances.port_in_use(port)}")
        host.say(f"camera {number}: nginx serves it at port {port}, password in {host.nginx_users}")


def requires_password(host: Host, port: int) -> bool:
    """Whether the site returns 401. An edited site may have TLS, with a certificate for another name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    for _ in range(_PASSWORD_TRIES):
        for scheme in ("http", "https"):
            try:
                opener.open(f"{scheme}://127.0.0.1:{port}/", timeout=5).close()
                return False
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    return True
            except OSError:
                pass
        host.sleep(0.1)
    return False


def _make_password(host: Host) -> None:
    """Makes a password if there is none. Only root can read it; nginx reads its hash."""
    file = host.nginx_users
    if file.exists():
        return
    password = f"{secrets.token_urlsafe(15)}\n"
    files.write(host.nginx_password, password.encode(), 0o600)
    hashed = host.run("openssl", "passwd", "-6", "-stdin", text=password, check=True).stdout
    files.write(file, f"camera:{hashed}\n".encode(), 0o600)
    host.run("chgrp", "www-data", file, check=True)
    file.chmod(0o640)
    host.say(f"nginx: user camera; its password is on the host: sudo cat {host.nginx_password}")


def remove_sites(host: Host) -> None:
    """Removes sites, keys and the password; reports an nginx that would not start without them."""
    if not any((host.nginx / "sites-available").glob("camera-soft-cam*.conf")):
        return
    names = ("sites-*/camera-soft-cam*.conf", "camera-soft-cam*.key", "snippets/camera-soft-cam.conf")
    installed = [path for name in names for path in host.nginx.glob(name)]
    for path in (*installed, host.nginx_users, host.nginx_password):
        path.unlink(missing_ok=True)
    tested = host.run("nginx", "-t", "-q")
    if tested.returncode == 0:
        host.run("systemctl", "reload", "nginx")
    elif tested.returncode != 127:  # another site may include what was removed
        host.say(f"nginx rejects its configuration now and would not start again: {files.reason(tested.stderr)}")
