"""One file per group of paths. A handler parses, calls one function, and answers."""
