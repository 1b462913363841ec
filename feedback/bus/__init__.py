"""The way from the outbox to the collector: `base` says what a bus promises, every other file is one bus."""
