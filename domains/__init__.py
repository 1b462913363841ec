"""Demo worlds: a database, its questions and its knowledge, one package each."""
