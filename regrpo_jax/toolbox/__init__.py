"""Tools that act on the files of a workspace, and the sandbox they run in."""
