"""What happened and what it was worth: events, their way into the store, and the episodes built from them."""
