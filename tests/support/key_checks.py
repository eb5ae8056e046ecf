"""Checks of keys without a brake."""

from collections.abc import Callable

from softcam.net.key_brake import CheckKey, Compare, Verdict


def delaying(on_wrong_key: Callable[[str], float]) -> CheckKey:
    """Compares every key; `on_wrong_key` gets the address of a client with a wrong one, and returns the delay."""

    def check(address: str, compare: Compare) -> Verdict:
        key = compare(None)
        return Verdict(key) if key is not None else Verdict(delay_s=on_wrong_key(address))

    return check
