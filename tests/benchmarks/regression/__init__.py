"""What `compare_commits.py` is made of."""
