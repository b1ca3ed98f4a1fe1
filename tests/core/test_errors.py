"""Every error is in the tree, and carries what its reader needs."""

import pytest

from thunderserve.core import errors


def test_every_public_error_is_a_thunderserve_error() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.ThunderServeError)


def test_the_tree_is_the_one_that_the_docstring_draws() -> None:
    """Catching a parent catches its children: what is busy or untransferable is unavailable."""
    assert issubclass(errors.ConfigError, errors.InvalidArgumentError)
    assert issubclass(errors.EngineBusyError, errors.UnavailableError)
    assert issubclass(errors.TransferError, errors.UnavailableError)
    assert not issubclass(errors.EngineFailedError, errors.UnavailableError)
    drawn = errors.__doc__ or ""
    assert all(name in drawn for name in errors.__all__)


def test_errors_carry_the_field_and_the_time_to_wait() -> None:
    with pytest.raises(errors.InvalidArgumentError) as wrong:
        raise errors.ConfigError("address is empty", param="address")
    assert (str(wrong.value), wrong.value.param) == ("address is empty", "address")
    assert errors.InvalidArgumentError("no").param is None
    assert errors.OverloadedError("full", retry_after_s=2.5).retry_after_s == 2.5
