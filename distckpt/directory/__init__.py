"""The content of a checkpoint directory. Any process reads and pins; only the owner changes it."""
