"""What `--spike` leaves out: nothing of a sound run, and the one step that went wrong."""
