"""The portal's log in memory, and across restarts: what `/v1/system/logs` shows. See docs/decisions/0020."""
