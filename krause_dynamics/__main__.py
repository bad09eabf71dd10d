"""``python -m krause_dynamics`` is the command ``krause``, also under launchers of several processes (torchrun)."""

from krause_dynamics.command.app import app

if __name__ == "__main__":
    app()
