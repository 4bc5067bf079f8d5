"""Files that run inside the engine's process or beside it, with the standard library alone."""
