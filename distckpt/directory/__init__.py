"""The content of a checkpoint directory. Only the chief writes it; only the pruner deletes."""
