"""Keys of meaning: what a run's numbers depend on, told from the code and not from its text.

The root is the code of a chapter's cells. A *definition* is what binds a name at the top level of
a module of the book's own packages: a function with its decorators and defaults, a class with its
fields, a constant. The cells reach definitions by name, these reach others, through imports,
however they are written; a module that is handed around as a whole reaches all that it holds.

Of each definition the syntax counts, without docstrings, comments and annotations of arguments.
A name of another definition in it stands for that definition, and a name of another library for
the place it was imported from. So neither where code stands nor what a function is called is
part of a key, and code that nothing reaches is none of it.

What makes a page look as it does (figures, the ledger, this package) has a key of its own.
"""

from ebmbook.keys.cells import form_of_cells, of_caller, plain, slice_of_cells
from ebmbook.keys.closures import Closure, closure, digest, numeric_pins
from ebmbook.keys.definitions import PACKAGES, Definition, SourceError, Sources
from ebmbook.keys.syntax import form_of

__all__ = [
    "PACKAGES",
    "Closure",
    "Definition",
    "SourceError",
    "Sources",
    "closure",
    "digest",
    "form_of",
    "form_of_cells",
    "numeric_pins",
    "of_caller",
    "plain",
    "slice_of_cells",
]
