"""The output of local workers: from pipes to the console, to files and to memory."""
