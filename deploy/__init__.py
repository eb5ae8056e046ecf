"""Installs Soft Stream on the host: deploy.sh sends this folder there and runs `python3 -m deploy.host` in it."""
