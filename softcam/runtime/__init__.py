"""What every package may use and is about no camera: threads, deadlines, logs, atomic files, systemd."""
