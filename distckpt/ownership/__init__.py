"""The ownership of a directory: each chief takes a term, and a stale chief is fenced off."""
