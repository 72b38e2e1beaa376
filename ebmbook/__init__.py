"""The book's tool chain: text sources to executed notebooks, records, ledger and HTML.

Run as `python -m ebmbook`; the Makefile has the everyday commands.
"""

import signal

# Polite ways to end a command: asked to, and its terminal closed.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit status of a command that was asked to end
