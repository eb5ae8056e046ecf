"""Cameras: the protocol (base), the session that opens one while there is a client, and one package for each kind."""
