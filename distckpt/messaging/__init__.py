"""How the workers exchange messages within one call: keys, waiting, progress."""
