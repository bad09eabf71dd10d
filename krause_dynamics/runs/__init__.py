"""What surrounds a loop: events to locate, what is kept, checkpoint files, progress, Ctrl-C."""
