"""Who may do what: only the committer commits, only the pruner deletes, a reader never writes."""
