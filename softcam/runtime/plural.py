"""Numbers with nouns, for log lines and messages. Pure functions; any thread."""


def counted(number: int, noun: str) -> str:
    """`0 frames`, `1 frame`, `2 frames`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
