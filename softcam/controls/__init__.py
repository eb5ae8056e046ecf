"""What steers the camera, as plain decisions: no thread, no socket, no camera in here."""
