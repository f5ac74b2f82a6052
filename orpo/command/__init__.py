"""What every command shares: settings, the command line, errors, output folders, the run record, progress.

Nothing here imports a heavy library, so a command that only shows its help answers at once.
"""
