"""The one loop of all runs, and what surrounds it: what is kept, stop rules, events, files, progress, Ctrl-C."""
