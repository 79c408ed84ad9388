"""The scenarios; importing a module registers what it holds."""
