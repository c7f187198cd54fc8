"""Services of the operating system and Python for the other packages: time, threads, signals."""
