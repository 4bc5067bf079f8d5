"""Nothing to set up: the file puts this folder on the path of those below it."""
