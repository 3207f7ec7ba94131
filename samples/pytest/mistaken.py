"""A test that is wrong, to show what a failure says (docs/howto-pytest.md)."""

from mmuemu.testing import assert_faults


def test_the_page_is_not_there(guest):
    program = guest.asm("here: mov byte ptr [here], 0x90\n")
    assert_faults(guest.run(program), at=program.address("here"), error="W|U")
