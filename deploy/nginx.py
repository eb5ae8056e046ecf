"""nginx in front of the portal: its sites, the password, the portal's key, and whether they work.

The file with the password is the truth: what is in it after an edit is nginx's password after the next deployment.
"""

import os
import re
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy import files, instances
from deploy.system import Failed, Host, in_url, name_for_others, read_text

FIRST_PORT = 8081  # of camera 0
_PASSWORD_TRIES = 50
_SNIPPET = "camera-soft-cam.conf"
_LISTEN = re.compile(r"(?m)^\s*listen\s+(?:[^;\s]*:)?(\d+)(?:[\s;].*)?$")
_USER = re.compile(r"(?m)^camera:(.*)$")


def public_port(host: Host, number: int) -> int:
    """The port that the site listens on; its owner may have edited it."""
    listen = _LISTEN.search(_site(host, number))
    return int(listen[1]) if listen else FIRST_PORT + number


def public_url(host: Host, number: int) -> str:
    """The address of the site; of one with TLS, by the name in its certificate."""
    site = _site(host, number)
    listen = _LISTEN.search(site)
    has_tls = listen is not None and re.search(r"\sssl\b", listen[0]) is not None
    names = re.search(r"(?m)^\s*server_name\s+([\w.-]+\.[\w-]+)", site)
    name = names[1] if has_tls and names else name_for_others(host)
    return f"{'https' if has_tls else 'http'}://{in_url(name)}:{public_port(host, number)}/"


def is_served(host: Host, number: int) -> bool:
    """Whether the camera has a site that is enabled."""
    return (host.nginx / f"sites-enabled/{_site_name(number)}").exists()


def credentials(host: Host) -> str:
    """The user, and how to see the password."""
    if not read_text(host.nginx_password).strip():
        return f"user and password: those in {host.nginx_users}, set by hand"
    return f"user: camera; password, on the host: sudo cat {host.nginx_password}"


def _site_name(number: int) -> str:
    return f"camera-soft-cam{number}.conf"


def _site(host: Host, number: int) -> str:
    return read_text(host.nginx / "sites-available" / _site_name(number))


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
    """Write the directive that sends the portal's key; whether it changed."""
    done = instances.healthcheck(host, release, "nginx", number)
    if done.returncode != 0:
        raise Failed(f"camera {number}: its key for nginx could not be read")
    return files.write(host.nginx / f"camera-soft-cam{number}.key", f"{done.stdout.strip()}\n".encode(), 0o600)


def renew_secrets(host: Host, release: str, numbers: Iterable[int]) -> None:
    """Update the key of each camera that nginx serves, if the settings have another one now, and the password."""
    served = [number for number in numbers if (host.nginx / f"camera-soft-cam{number}.key").exists()]
    if served and read_text(host.nginx_password).strip():
        _apply_password(host)
    renewed = [number for number in served if _write_key(host, release, number)]
    for number in renewed:
        host.say(f"camera {number}: updated its key for nginx")
    if renewed and host.is_active("nginx") and not host.succeeds("systemctl", "reload", "nginx"):
        # Any site may be wrong, not only ours.
        host.say("nginx could not be reloaded and uses the old key: sudo nginx -t; then sudo systemctl reload nginx")


def install_sites(host: Host, release: str, numbers: Sequence[int], *, before: str = "") -> None:
    """Install and enable a site for each camera. If nginx does not work with them, new ones are disabled again.

    `before` is the release before, if there was one.
    """
    enabled = host.nginx / "sites-enabled"
    if not enabled.is_dir():
        raise Failed(f"{enabled} does not exist: see integrations/nginx/README.md")
    _apply_password(host)
    source = host.release(release) / "integrations/nginx"
    earlier = host.release(before) / "integrations/nginx"
    snippet = host.nginx / "snippets" / _SNIPPET
    files.ship(host, (source / _SNIPPET).read_bytes(), snippet, 0o644, earlier=read_text(earlier / _SNIPPET))
    added = []
    for number in numbers:
        name = _site_name(number)
        inside = instances.healthcheck(host, release, "port", number).stdout
        site, old = (_render_site(host, folder, number, inside) for folder in (source, earlier))
        files.ship(host, site.encode(), host.nginx / "sites-available" / name, 0o644, earlier=old)
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


def _render_site(host: Host, folder: Path, number: int, inside: str) -> str:
    site = read_text(folder / "site.conf")
    for placeholder, value in (("@N@", number), ("@OUTSIDE@", FIRST_PORT + number), ("@INSIDE@", inside)):
        site = site.replace(placeholder, str(value))
    return site if host.path("proc/net/if_inet6").exists() else re.sub(r"(?m)^.*listen \[::\].*\n", "", site)


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


def _apply_password(host: Host) -> None:
    """Make nginx's password for the user `camera` the one in the file, which is made if there is none.

    Only root can read the file; nginx reads the hash. Other users stay, and so does a `camera` that was added by hand
    without a file.
    """
    users = read_text(host.nginx_users)
    ours = _USER.search(users)
    password = next(iter(read_text(host.nginx_password).splitlines()), "").strip()
    if password:
        host.nginx_password.chmod(0o600)
        if ours and _hash(host, password, ours[1]) == ours[1]:
            return
    elif ours:
        return
    else:
        password = secrets.token_urlsafe(15)
        files.write(host.nginx_password, f"{password}\n".encode(), 0o600)
    line = f"camera:{_hash(host, password)}"
    text = _USER.sub(lambda _: line, users) if ours else f"{line}\n{users}"
    files.write(host.nginx_users, text.encode(), 0o600)
    host.run("chgrp", "www-data", host.nginx_users, check=True)
    host.nginx_users.chmod(0o640)
    host.say(f"nginx: the password of user camera is now the one in {host.nginx_password}")


def _hash(host: Host, password: str, like: str = "") -> str:
    """The hash of the password, with the salt of the hash `like` if it is of the same kind."""
    salt = re.match(r"\$6\$([^$]+)\$", like)
    options = ("-salt", salt[1]) if salt else ()
    return host.run("openssl", "passwd", "-6", *options, "-stdin", text=f"{password}\n", check=True).stdout


def remove_sites(host: Host) -> None:
    """Remove sites, keys and the password; report an nginx that would not start without them."""
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
