"""The errors of the library, a small tree under `ValueError` and `TypeError`.

Every message is one sentence, ``<what> must be <rule>, got <value>.``, followed by the remedy where there is
one. Catch `NoiseFilterError` for anything the library refuses about values, `InputTypeError` for wrong types.
"""

__all__ = [
    "FileError",
    "InputError",
    "InputTypeError",
    "LabelError",
    "MissingSignalError",
    "NoiseFilterError",
    "ParameterError",
    "TrainingDivergedError",
]


class NoiseFilterError(ValueError):
    """Anything the library refuses about the values it was given."""


class InputError(NoiseFilterError):
    """Arrays that cannot be used: not finite, of different lengths, of the wrong shape."""


class LabelError(NoiseFilterError):
    """Labels that cannot be used: one class only, missing, continuous or multilabel."""


class ParameterError(NoiseFilterError):
    """A parameter outside its range, or parameters that exclude each other."""


class MissingSignalError(NoiseFilterError):
    """A filter needs a signal that nobody recorded."""


class FileError(NoiseFilterError):
    """A saved file that cannot be loaded: not whole, of another kind, or one whose parts disagree."""


class TrainingDivergedError(NoiseFilterError):
    """A training whose loss stopped being finite."""


class InputTypeError(TypeError):
    """An argument of a type the library cannot use."""
