"""The book's tool chain: text sources to executed notebooks, records, ledger and HTML.

Run as `python -m ebmbook`; the Makefile has the everyday commands.
"""

INTERRUPTED = 130  # exit status of a command that was asked to end
