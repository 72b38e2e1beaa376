"""The book's machinery: what a chapter imports, and the tool chain that makes pages of it.

A chapter needs `ledger`, `plots`, `claims` and `runs`, which are light; text sources to executed
notebooks, records and HTML need the tools of the extra `book`.

Run as `python -m ebmbook.press`; the Makefile has the everyday commands.
"""

import signal

# Polite ways to end a command: asked to, and its terminal closed.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit status of a command that was asked to end
