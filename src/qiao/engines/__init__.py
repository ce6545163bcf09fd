"""Starting, watching and stopping engines as child processes."""
