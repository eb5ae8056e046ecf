"""What a deployment prints at its end: the addresses to open, the user, and how to see the password."""

from collections.abc import Sequence

from deploy import instances, nginx, rtsp
from deploy.cameras import Inventory
from deploy.system import Host, in_url, name_for_others

_WILDCARDS = ("0.0.0.0", "::")
_LOOPBACK = ("", "localhost", "127.0.0.1", "::1")


def report(host: Host, release: str, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Print the address of each camera that is running, for nginx's sites with the user and the password."""
    served = [number for number in numbers if nginx.is_served(host, number)]
    for number in numbers:
        if number in served:
            host.say(f"camera {number}: open {nginx.public_url(host, number)}")
        else:
            _report_portal(host, release, inventory, number, [*served, number])
    if served:
        host.say(nginx.credentials(host))


def _report_portal(host: Host, release: str, inventory: Inventory, number: int, numbers: Sequence[int]) -> None:
    """Print the address of a portal that nginx does not serve, and how nginx would."""
    port = instances.healthcheck(host, release, "port", number).stdout
    address = inventory.value(number, "host")
    if address in _LOOPBACK:
        selected = f"--cameras {','.join(map(str, sorted(numbers)))} " if host.options.cameras else ""
        url = f"http://{in_url(name_for_others(host))}:{nginx.FIRST_PORT + number}/"
        offer = f"deploy.sh {selected}--with-nginx serves it at {url} with a password"
        host.say(f"camera {number}: on the host only, http://127.0.0.1:{port}/; {offer}")
        return
    name = name_for_others(host) if address in _WILDCARDS else address
    host.say(f"camera {number}: open http://{in_url(name)}:{port}/ ({_describe_access(host, inventory, number)})")


def _describe_access(host: Host, inventory: Inventory, number: int) -> str:
    known = rtsp.with_earlier(host, inventory)
    for key in ("api_key", "view_key"):
        if known.value(number, key):
            file = host.env_file if inventory.value(number, key) else host.rtsp_file
            return f"any user; password, on the host: sudo grep -i {key}= {file}"
    return "without a password"
