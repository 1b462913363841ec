"""Other products' shapes of feedback, mapped onto `gateway.opinion` and back: one module each, and no I/O in them."""
