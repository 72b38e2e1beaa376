"""The tool chain: text sources to executed notebooks, records, ledger and HTML.

Needs the tools of the extra `book`. Run as `python -m ebmbook.press`; the Makefile has the
everyday commands.
"""
