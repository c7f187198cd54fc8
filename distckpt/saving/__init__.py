"""One save, from the captured state to the commit."""
