"""The front door: the `flywheel` command, its settings, set-up, and the supervisor that runs it all on one machine."""
