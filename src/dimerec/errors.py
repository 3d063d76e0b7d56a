"""The exception tree. Every message says what is wrong, where, and what to do about it."""


class DimeRecError(Exception):
    """Anything this package raises on purpose; the command line prints it as one line, exit 2."""


class ConfigError(DimeRecError):
    """A configuration names an unknown key, a value out of range, or things that do not fit."""


class DataError(DimeRecError):
    """A log or dataset cannot be read, breaks a promise, or leaves nothing to work with."""


class BundleError(DimeRecError):
    """A bundle is incomplete, corrupt, or of another version."""


class TrainingDiverged(DimeRecError):
    """A loss became NaN or infinite; names the step and the last good checkpoint."""


class ServingError(DimeRecError):
    """A request cannot be answered."""


class Overloaded(ServingError):
    """Too much work is waiting; try again later."""


class DeadlineExceeded(ServingError):
    """The request's time ran out before it was computed."""


class StoreUnavailable(ServingError):
    """A store of histories is down, full, corrupt or closed."""
