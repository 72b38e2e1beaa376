"""Reference code of the book on energy-based models; one module a section.

Lower energy means more likely, everywhere. An energy is any callable that takes a batch
`(n, *event)` and returns `(n,)`.
"""

__version__ = "0.1.0"
