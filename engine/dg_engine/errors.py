"""Everything that can go wrong in the engine, as one tree.

    EngineError
    ├── RequestError            the caller asked for something impossible: the message names the field
    ├── CheckpointError         a checkpoint on disk is malformed: names file, tensor, expected, found
    ├── EngineUnavailable       no engine answers at the address, and none could be started
    └── EngineFailed            the engine accepted the request and then broke

Each message is one sentence that says what to do, because it is shown to people as it is.
"""

import errno

import msgspec

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)
"""What `msgspec.json.decode` raises for bytes that are no JSON of the wanted type, or whose strings are no UTF-8."""
NO_ROOM = frozenset((errno.EDQUOT, errno.EFBIG, errno.ENOSPC))
"""The numbers of errors by which a system says that a disk is full, or as full as it may be."""


class EngineError(Exception):
    """The base of every error that the engine raises on purpose."""


class RequestError(EngineError):
    """The request cannot be carried out as asked; the message names the field and its allowed values."""


class CheckpointError(EngineError):
    """A checkpoint cannot be loaded; the message names the file, the tensor, what was expected and what was found."""


class EngineUnavailable(EngineError):
    """No engine answers at the address, or it did not become ready in time."""


class EngineFailed(EngineError):
    """The engine accepted the request and then failed; the message is the engine's own."""
