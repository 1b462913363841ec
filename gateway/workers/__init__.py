"""Several processes that answer behind one port: worker 0 leads, and the others serve by what it says."""
