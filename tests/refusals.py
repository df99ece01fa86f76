"""What the tests of bad input share."""

import pytest

from sphere_jax.common.errors import UserError


def refusal_of(call, *arguments, **options) -> str:
    """The one sentence that `call` is refused with."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
