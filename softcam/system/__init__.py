"""The state of the machine, read from `/proc` and `/sys`: temperature, throttling, load, memory, network, disk."""
