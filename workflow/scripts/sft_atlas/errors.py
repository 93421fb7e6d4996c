"""What can go wrong in a way that a user can mend; each message is one line: where, what was found, what would do."""


class StudyError(ValueError):
    """A study file or config.yaml that cannot be used; the message says where, what was found and what would do."""


class DataError(ValueError):
    """A row or file that cannot be used; names the file, the row, what was found and what was expected."""


class SpecError(ValueError):
    """A frozen specification that is not the one its name promises, or that no job of this version can read."""


class CellError(ValueError):
    """A cell that will never have a result as it is declared: it is recorded as failed, and the rest goes on."""


class TableError(ValueError):
    """A table does not have the columns, types or keys that its schema declares."""
